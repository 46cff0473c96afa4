"""`yolact evaluate` from options to lines of text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs import storage
from jobs.evaluate.lines import quality_lines, score_lines
from jobs.evaluate.policy import policy_lines, policy_of, policy_yaml
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import match_labels, read_ground_truth
from jobs.table.policy_file import read_policy
from jobs.table.read import open_labels
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import evaluate_and_match
from yolact.coco.quality import measure_quality

if TYPE_CHECKING:
    from jobs.evaluate.options import EvaluateConfig


def evaluate(config: EvaluateConfig) -> list[str]:
    """Compare, write the files that `config` asks for, and return the lines to print."""
    asked = None if config.policy is None else read_policy(config.policy)
    truth = read_ground_truth(config.ground_truth, skip_broken=config.skip_broken)
    table = open_labels(config.labels).under(asked)
    if table.policy is not None:
        truth = table.policy.of_truth(truth)
    if not truth.num_objects:
        raise UsageError(
            f"{config.ground_truth} has no objects to compare with: "
            f"{len(truth.images)} images, {truth.num_crowds} crowd regions"
        )
    matched = match_labels(table.images(), truth)
    content = coco_json(truth)
    evaluations = {limit: evaluate_and_match(content, matched.detections, limit) for limit in config.max_detections}
    most = max(config.max_detections)
    quality = measure_quality(content, matched.detections, evaluations[most], config.score_threshold)
    policy = None if config.write_policy is None else policy_of(quality, config.wanted_precision)
    if config.output is not None:
        written = {
            "counts": asdict(matched.counts),
            "scores": {
                str(limit): {kind: asdict(result) for kind, result in evaluation.scores.items()}
                for limit, evaluation in evaluations.items()
            },
            "curves": {"max_detections": most, **quality.to_dict()},
        }
        storage.put_atomic(config.output, json.dumps(written).encode())
    if config.write_policy is not None and policy is not None:
        text = policy_yaml(policy, config.ground_truth, config.wanted_precision)
        storage.put_atomic(config.write_policy, text.encode())
    lines = list(matched.counts.lines())
    for evaluation in evaluations.values():
        lines += score_lines(evaluation.scores, config.per_class)
    lines += quality_lines(quality, config.per_class)
    if config.write_policy is not None and policy is not None:
        lines += policy_lines(policy, config.write_policy)
    return lines
