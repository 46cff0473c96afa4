"""`yolact evaluate` from options to lines of text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs import storage
from jobs.evaluate.lines import score_lines
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import match_labels, read_ground_truth
from jobs.table.read import read_labels
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import evaluate_instances

if TYPE_CHECKING:
    from jobs.evaluate.options import EvaluateConfig


def evaluate(config: EvaluateConfig) -> list[str]:
    """Compare, write the files that `config` asks for, and return the lines to print."""
    truth = read_ground_truth(config.ground_truth, skip_broken=config.skip_broken)
    if not truth.num_objects:
        raise UsageError(
            f"{config.ground_truth} has no objects to compare with: "
            f"{len(truth.images)} images, {truth.num_crowds} crowd regions"
        )
    matched = match_labels(read_labels(config.labels), truth)
    content = coco_json(truth)
    scores = {limit: evaluate_instances(content, matched.detections, limit) for limit in config.max_detections}
    if config.output is not None:
        written = {
            "counts": asdict(matched.counts),
            "scores": {
                str(limit): {kind: asdict(result) for kind, result in by_kind.items()}
                for limit, by_kind in scores.items()
            },
        }
        storage.put_atomic(config.output, json.dumps(written, indent=1).encode())
    lines = list(matched.counts.lines())
    for by_kind in scores.values():
        lines += score_lines(by_kind, config.per_class)
    return lines
