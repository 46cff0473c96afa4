"""Precision and recall over the score, and how far scores can be trusted: plain numpy, from matched detections.

`yolact.coco.evaluation` matches detections with objects by pycocotools' rules and gives one `ClassMatches` a class.
Everything here is counted from these records.

Shape legend: N detections, T values of IoU, K different scores, B bins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property

import numpy as np

#: stands for a number that does not exist, as in COCO: the recall of a class without objects, for example
UNKNOWN = -1.0
#: recall values at which a curve is drawn: 0, 0.01 … 1, as in COCO
RECALL_POINTS = np.linspace(0, 1, 101)
CALIBRATION_BINS = 10
#: a threshold that is written with fewer digits lies at most this far below the score that it stands for
_MOST_ROUNDING = 0.01


@dataclass(frozen=True)
class ClassMatches:
    """The matched detections of one class, or of several classes together."""

    objects: int
    """objects in the ground truth, without crowd regions"""
    scores: np.ndarray
    """(N,) float64"""
    right: np.ndarray
    """(T, N) bool: the detection has an object of its own at this IoU"""
    left_out: np.ndarray
    """(T, N) bool: the detection lies in a crowd region, so it is neither right nor wrong"""


@dataclass(frozen=True)
class Point:
    """What is left if only detections with this score or a higher one count. Numbers are 0–1, or UNKNOWN."""

    score: float
    precision: float
    """share of the detections that are right; UNKNOWN where none is left"""
    recall: float
    """share of the objects that are found; UNKNOWN where the class has none"""
    f1: float
    """harmonic mean of precision and recall; UNKNOWN where the class has no objects"""


@dataclass(frozen=True)
class Curve:
    """Precision and recall of a class at one IoU, at every different score that its detections have."""

    objects: int
    scores: np.ndarray
    """(K,) float64, highest first"""
    right: np.ndarray
    """(K,) int64: right detections with this score or a higher one"""
    detections: np.ndarray
    """(K,) int64: right and wrong detections with this score or a higher one"""

    @cached_property
    def precision(self) -> np.ndarray:
        """(K,) float64."""
        return self.right / self.detections

    @cached_property
    def recall(self) -> np.ndarray:
        """(K,) float64; UNKNOWN where the class has no objects."""
        return self.right / self.objects if self.objects else np.full(len(self.scores), UNKNOWN)

    @cached_property
    def f1(self) -> np.ndarray:
        """(K,) float64; UNKNOWN where the class has no objects."""
        if not self.objects:
            return np.full(len(self.scores), UNKNOWN)
        return 2 * self.right / (self.detections + self.objects)

    def at(self, score: float) -> Point:
        """The point at a threshold. Any number is good, not only a score of a detection."""
        place = int(np.searchsorted(-self.scores, -score, side="right")) - 1
        if place < 0:
            none = 0.0 if self.objects else UNKNOWN
            return Point(score, UNKNOWN, none, none)
        return Point(score, float(self.precision[place]), float(self.recall[place]), float(self.f1[place]))

    def best_f1(self) -> Point | None:
        """The point with the best F1, the highest score of equals; None where no detection is right at any score."""
        if not self.objects or not len(self.scores) or not self.right[-1]:
            return None
        return self.at(float(self.scores[int(self.f1.argmax())]))

    def with_precision(self, wanted: float) -> Point | None:
        """The lowest score, so the most objects, at which the precision is `wanted` (0–1) or more; None without one."""
        places = np.flatnonzero((self.precision >= wanted) & (self.right > 0))
        return self.at(float(self.scores[places[-1]])) if len(places) and self.objects else None

    def rounded(self, score: float) -> float:
        """A threshold with few digits that keeps the same detections as `score`, which must be one of `scores`.

        It lies above the next lower score and below `score`, by at most 0.01. So it makes no difference whether a
        reader keeps scores above the threshold or those on it too.
        """
        lower = self.scores[self.scores < score]
        low = max(float(lower[0]) if len(lower) else 0.0, score - _MOST_ROUNDING)
        for digits in range(1, 17):
            unit = Decimal(1).scaleb(-digits)
            short = Decimal(score).quantize(unit, ROUND_FLOOR)
            short = short - unit if float(short) >= score else short
            if low < float(short) < score:
                return float(short)
        return (low + score) / 2

    def over_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """(101,) precision and (101,) score over `RECALL_POINTS`, as pycocotools draws the curve.

        The precision at a recall is the best one at this or a higher recall. Both are 0 where the recall is not
        reached. Detections with equal scores count together; pycocotools counts them one after the other.
        """
        precision, scores = np.zeros(len(RECALL_POINTS)), np.zeros(len(RECALL_POINTS))
        if self.objects and len(self.scores):
            best = np.maximum.accumulate(self.precision[::-1])[::-1]
            places = np.searchsorted(self.recall, RECALL_POINTS, side="left")
            reached = places < len(self.scores)
            precision[reached], scores[reached] = best[places[reached]], self.scores[places[reached]]
        return precision, scores


@dataclass(frozen=True)
class Calibration:
    """Whether a score is the share of right detections: bins of equal width from 0 to 1."""

    edges: np.ndarray
    """(B + 1,) float64; a score on an edge belongs to the bin below it"""
    detections: np.ndarray
    """(B,) int64"""
    mean_score: np.ndarray
    """(B,) float64; UNKNOWN for a bin without detections"""
    share_right: np.ndarray
    """(B,) float64; UNKNOWN for a bin without detections"""

    @property
    def expected_error(self) -> float:
        """Mean distance of score and share, weighted by detections; UNKNOWN without detections."""
        if not self.detections.sum():
            return UNKNOWN
        distances = np.abs(self.mean_score - self.share_right)
        return float((distances * self.detections).sum() / self.detections.sum())


def curve(matches: ClassMatches, iou: int) -> Curve:
    """The curve of a class at the IoU with this index."""
    counts = ~matches.left_out[iou]
    scores, right = matches.scores[counts], matches.right[iou, counts]
    different, place = np.unique(-scores, return_inverse=True)
    detections = np.bincount(place, minlength=len(different)).cumsum()
    rights = np.bincount(place, weights=right, minlength=len(different)).cumsum().astype(np.int64)
    return Curve(matches.objects, -different, rights, detections)


def together(classes: Iterable[ClassMatches], num_ious: int) -> ClassMatches:
    """All detections of several classes as if they were one class, still matched within their own class."""
    classes = list(classes)
    if not classes:
        empty = np.zeros((num_ious, 0), bool)
        return ClassMatches(0, np.zeros(0), empty, empty)
    return ClassMatches(
        sum(one.objects for one in classes),
        np.concatenate([one.scores for one in classes]),
        np.concatenate([one.right for one in classes], axis=1),
        np.concatenate([one.left_out for one in classes], axis=1),
    )


def calibration(matches: ClassMatches, iou: int, bins: int = CALIBRATION_BINS) -> Calibration:
    """Mean score and share of right detections by bin of score, at the IoU with this index."""
    counts = ~matches.left_out[iou]
    scores, right = matches.scores[counts], matches.right[iou, counts]
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], scores)
    detections = np.bincount(bin_of, minlength=bins)
    some = detections > 0
    mean_score, share = np.full(bins, UNKNOWN), np.full(bins, UNKNOWN)
    mean_score[some] = np.bincount(bin_of, weights=scores, minlength=bins)[some] / detections[some]
    share[some] = np.bincount(bin_of, weights=right, minlength=bins)[some] / detections[some]
    return Calibration(edges, detections, mean_score, share)
