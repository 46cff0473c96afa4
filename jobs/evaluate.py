"""Average precision of a label table against COCO ground truth.

    yolact evaluate s3://bucket/labelled --ground-truth s3://bucket/instances_val.json --max-detections 100 500

Prints COCO's twelve numbers for masks and boxes and AP at each IoU; what could not be compared is counted, and images
of the ground truth that the table lacks count as images without detections. Runs in this process: seconds to minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from yolact.coco.evaluation import CocoScores


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
    skip_broken: bool = False
    """leave broken annotations and images of the ground truth out instead of stopping"""
    output: str | None = None
    """file or URI for the same numbers as JSON"""


def run(config: EvaluateConfig) -> int:
    """Compare, print, and return the exit code."""
    # imported here, so that `yolact evaluate --help` needs neither pyarrow nor pycocotools
    import json
    from dataclasses import asdict

    from jobs import storage
    from jobs.runtime.errors import EXIT_OK, UsageError
    from jobs.table.ground_truth import match_labels, read_ground_truth
    from jobs.table.read import read_labels
    from yolact.coco.annotations import coco_json
    from yolact.coco.evaluation import RECALL_AT, evaluate_instances

    if not config.max_detections or min(config.max_detections) <= RECALL_AT[-1]:
        raise UsageError(f"--max-detections {config.max_detections}: numbers above {RECALL_AT[-1]} are needed")
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
    # printing comes last: whoever reads the lines may stop reading before the end
    for line in matched.counts.lines():
        print(line)
    for by_kind in scores.values():
        for line in score_lines(by_kind, config.per_class):
            print(line)
    return EXIT_OK


#: label and field of each row of the table; the second half of COCO's summary is recall
_ROWS = (
    ("AP 0.50:0.95", "ap"),
    ("AP 0.50", "ap50"),
    ("AP 0.75", "ap75"),
    ("AP small", "ap_small"),
    ("AP medium", "ap_medium"),
    ("AP large", "ap_large"),
    ("AR at 1", "ar_1"),
    ("AR at 10", "ar_10"),
    ("AR at {limit}", "ar_max"),
    ("AR small", "ar_small"),
    ("AR medium", "ar_medium"),
    ("AR large", "ar_large"),
)


def score_lines(scores: dict[str, CocoScores], per_class: bool = False) -> Iterator[str]:
    """A table with a column per kind of overlap; "—" where the ground truth has nothing of that size."""
    limit = next(iter(scores.values())).max_detections
    yield ""
    yield _line(f"at most {limit} detections", list(scores))
    for label, name in _ROWS:
        yield _line(label.format(limit=limit), [_percent(getattr(result, name)) for result in scores.values()])
    for iou in next(iter(scores.values())).ap_by_iou:
        yield _line(f"AP at IoU {iou}", [_percent(result.ap_by_iou[iou]) for result in scores.values()])
    if per_class:
        for category in next(iter(scores.values())).ap_by_class:
            yield _line(category, [_percent(result.ap_by_class[category]) for result in scores.values()])


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<24}" + "".join(f"{cell:>10}" for cell in cells)


def _percent(value: float) -> str:
    return "—" if value < 0 else f"{100 * value:.2f}"
