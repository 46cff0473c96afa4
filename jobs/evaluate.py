"""Average precision of a label table against COCO ground truth.

    yolact evaluate s3://bucket/labelled --ground-truth s3://bucket/instances_val.json --max-detections 100 500

Prints COCO's twelve numbers for masks and boxes and AP at each IoU; what could not be compared is counted, and images
of the ground truth that the table lacks count as images without detections. Runs in this process: seconds to minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `yolact evaluate`."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, its labels/ folder, or one Parquet file (any fsspec URI)"""
    ground_truth: str
    """COCO instances JSON; images are matched by file name"""
    max_detections: tuple[int, ...] = (100,)
    """detections per image and class that count, the best ones; several numbers give several tables (COCO: 100)"""
    per_class: bool = False
    """print the AP of every class as well"""
    output: str | None = None
    """file or URI for the same numbers as JSON"""


def run(config: EvaluateConfig) -> int:
    """Compare, print, and return the exit code."""
    import json
    from dataclasses import asdict

    from jobs import storage
    from jobs.runtime.errors import EXIT_OK, UsageError
    from jobs.table.ground_truth import match_labels, read_coco, score_lines
    from jobs.table.read import read_labels
    from yolact.coco.annotations import coco_json
    from yolact.coco.evaluation import RECALL_AT, evaluate_instances

    if not config.max_detections or min(config.max_detections) <= RECALL_AT[-1]:
        raise UsageError(f"--max-detections {config.max_detections}: numbers above {RECALL_AT[-1]} are needed")
    truth = read_coco(config.ground_truth)
    matched = match_labels(read_labels(config.labels), truth)
    for line in matched.counts.lines():
        print(line)
    content = coco_json(truth)
    written = {"counts": asdict(matched.counts), "scores": {}}
    for limit in config.max_detections:
        scores = evaluate_instances(content, matched.detections, limit)
        for line in score_lines(scores, config.per_class):
            print(line)
        written["scores"][str(limit)] = {kind: asdict(result) for kind, result in scores.items()}
    if config.output is not None:
        storage.put_atomic(config.output, json.dumps(written, indent=1).encode())
    return EXIT_OK
