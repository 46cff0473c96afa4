"""How good the masks of a label table are, beyond average precision: curves, thresholds, confusions and calibration.

`yolact evaluate` and the report show the same numbers, and write them as the same JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from yolact.coco.confusion import Confusion, confusion_matrix
from yolact.coco.curves import RECALL_POINTS, Calibration, ClassMatches, Curve, Point, calibration, curve, together
from yolact.coco.evaluation import DetectedInstance, Evaluation

#: index of IoU 0.50: the overlap of all numbers that are not given by IoU
AT_HALF = 0


@dataclass(frozen=True)
class ClassQuality:
    """Curves of one class by IoU, and the calibration of its scores at IoU 0.50."""

    curves: tuple[Curve, ...]
    calibration: Calibration

    @property
    def half(self) -> Curve:
        """The curve at IoU 0.50."""
        return self.curves[AT_HALF]

    @property
    def objects(self) -> int:
        return self.half.objects

    @property
    def detections(self) -> int:
        """Detections that are right or wrong at IoU 0.50; those in crowd regions are not among them."""
        return int(self.half.detections[-1]) if len(self.half.detections) else 0


@dataclass(frozen=True)
class Quality:
    """The quality of masks by class name, in the order of category ids, and of all classes together."""

    ious: tuple[float, ...]
    classes: dict[str, ClassQuality]
    whole: ClassQuality
    """all detections in one curve: large classes weigh more than small ones"""
    score: float
    """the threshold of `confusion` and of the points "at_score" """
    confusion: Confusion

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values: docs/evaluate.md names them."""
        return {
            "iou": [_iou_name(iou) for iou in self.ious],
            "score": self.score,
            "recall": [round(float(value), 2) for value in RECALL_POINTS],
            "all": self._class_dict(self.whole),
            "classes": {name: self._class_dict(one) for name, one in self.classes.items()},
            "confusion": {
                "names": list(self.confusion.names),
                "counts": self.confusion.counts.tolist(),
                "score": self.confusion.score,
                "iou": self.confusion.iou,
            },
        }

    def _class_dict(self, one: ClassQuality) -> dict[str, Any]:
        names = [_iou_name(iou) for iou in self.ious]
        over_recall = [found.over_recall() for found in one.curves]
        calibrated = one.calibration
        return {
            "objects": one.objects,
            "detections": one.detections,
            "precision": {name: _rounded(precision) for name, (precision, _) in zip(names, over_recall, strict=True)},
            "score": {name: _rounded(scores) for name, (_, scores) in zip(names, over_recall, strict=True)},
            "best_f1": {name: _point(found.best_f1()) for name, found in zip(names, one.curves, strict=True)},
            "at_score": {name: _point(found.at(self.score)) for name, found in zip(names, one.curves, strict=True)},
            "calibration": {
                "edges": _rounded(calibrated.edges),
                "detections": calibrated.detections.tolist(),
                "mean_score": calibrated.mean_score.tolist(),
                "share_right": calibrated.share_right.tolist(),
                "expected_error": calibrated.expected_error,
            },
        }


def measure_quality(
    ground_truth: Mapping[str, Any],
    detections: Sequence[DetectedInstance],
    evaluation: Evaluation,
    score: float | None = None,
) -> Quality:
    """The curves of an evaluation's matches, and the confusions of its detections.

    Args:
        ground_truth: what `evaluate_and_match` got.
        detections: what `evaluate_and_match` got.
        evaluation: what it gave.
        score: threshold of the confusions; None takes that of the best F1 of all classes, or 0 without a right one.
    """
    classes = {name: _class_quality(found) for name, found in evaluation.matches.items()}
    whole = _class_quality(together(evaluation.matches.values(), len(evaluation.ious)))
    best = whole.half.best_f1()
    threshold = score if score is not None else 0.0 if best is None else whole.half.rounded(best.score)
    confusion = confusion_matrix(ground_truth, detections, threshold, evaluation.ious[AT_HALF])
    return Quality(evaluation.ious, classes, whole, threshold, confusion)


def _class_quality(matches: ClassMatches) -> ClassQuality:
    return ClassQuality(
        tuple(curve(matches, place) for place in range(len(matches.right))), calibration(matches, AT_HALF)
    )


def _point(point: Point | None) -> dict[str, float] | None:
    return None if point is None else asdict(point)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def _iou_name(iou: float) -> str:
    return f"{iou:.2f}"
