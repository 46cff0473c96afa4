"""Non-maximum suppression: Fast NMS (paper, section 3.3), its cross-class variant, and the standard one.

All three take boxes (A, 4) xyxy and foreground scores (A, C) of an image and give `Kept`, best score first; ties go to
the lower label, then to the lower row, so that the same input always gives the same order.

Shapes: A boxes, C classes, M candidates (pairs of box and class), N kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from yolact.config import NmsConfig, NmsKind
from yolact.geometry.boxes import box_iou


class Kept(NamedTuple):
    """What survives: the row of each detection's box, its label and its score."""

    rows: Tensor
    """(N,) int64 into A."""
    labels: Tensor
    """(N,) int64, 0-based."""
    scores: Tensor
    """(N,)."""

    def take(self, index: Tensor | slice) -> Kept:
        return Kept(self.rows[index], self.labels[index], self.scores[index])


Nms = Callable[[Tensor, Tensor, NmsConfig, float], Kept]


def fast_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Class-wise Fast NMS: in each class's `top_k` best, drop a box that overlaps any better one, dropped or not.

    Gives the `max_detections` best over all classes whose score is above the threshold; with a low one, low scores
    fill up the list, as in the release.
    """
    # A box's fate depends on better ones of its class alone, so that the best pairs can be settled without the rest.
    share = 4 * settings.max_detections
    while True:
        candidates = _best_candidates(scores, score_threshold, share)
        kept = _suppress_within_classes(boxes, candidates, settings)
        if len(candidates.rows) < share or share >= scores.numel() or len(kept.rows) >= settings.max_detections:
            return kept.take(slice(settings.max_detections))
        share *= 4


def cross_class_fast_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Fast NMS over all classes at once: each box has its best class only, `top_k` enter, all survivors are kept."""
    if scores.shape[0] == 0:
        return _candidates(scores, score_threshold)
    best, labels = scores.max(dim=1)
    rows = (best > score_threshold).nonzero()[:, 0]
    candidates = _best_first(Kept(rows, labels[rows], best[rows])).take(slice(settings.top_k))
    overlap = box_iou(boxes[candidates.rows], boxes[candidates.rows])
    return candidates.take(_worst_overlap(overlap) <= settings.iou_threshold)


def standard_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Class-wise greedy NMS of all pairs above `score_floor` and the threshold; gives the `max_detections` best."""
    candidates = _candidates(scores, max(settings.score_floor, score_threshold))
    # torchvision shifts each class's boxes apart; in double that costs no accuracy
    kept = batched_nms(
        boxes[candidates.rows].double(), candidates.scores.double(), candidates.labels, settings.iou_threshold
    )
    return candidates.take(kept.sort().values[: settings.max_detections])


NMS_KINDS: dict[NmsKind, Nms] = {"fast": fast_nms, "fast-cross-class": cross_class_fast_nms, "standard": standard_nms}


def _candidates(scores: Tensor, score_threshold: float) -> Kept:
    """All pairs of box and class above the threshold, best first."""
    labels, rows = (score_threshold < scores.T).nonzero(as_tuple=True)
    return _best_first(Kept(rows, labels, scores[rows, labels]))


def _best_candidates(scores: Tensor, score_threshold: float, share: int) -> Kept:
    """The `share` best of `_candidates` and those that tie with the last, or all where there are fewer."""
    rows = None
    if len(scores) > share:
        # the share best rows hold a pair each that is as good, so that no pair of another row is among the best
        best = scores.amax(dim=1)
        rows = (best >= best.topk(share).values[-1]).nonzero()[:, 0]
        scores = scores[rows]
    if scores.numel() > share:
        least = scores.flatten().topk(share).values[-1]
        scores = torch.where(scores >= least, scores, -torch.inf)
    candidates = _candidates(scores, score_threshold)
    return candidates if rows is None else candidates._replace(rows=rows[candidates.rows])


def _best_first(candidates: Kept) -> Kept:
    return candidates.take(candidates.scores.argsort(descending=True, stable=True))


def _suppress_within_classes(boxes: Tensor, candidates: Kept, settings: NmsConfig) -> Kept:
    """Fast NMS of each class's `top_k` best among candidates in order of score; classes are padded to one size."""
    if len(candidates.rows) == 0:
        return candidates
    _, group, count = torch.unique(candidates.labels, return_inverse=True, return_counts=True)
    by_group = group.argsort(stable=True)
    starts = count.cumsum(0) - count
    rank = torch.empty_like(group)
    rank[by_group] = torch.arange(len(group), device=group.device) - starts[group[by_group]]
    enters = rank < settings.top_k
    candidates, group, rank = candidates.take(enters), group[enters], rank[enters]
    padded = boxes.new_zeros((len(count), int(rank.max()) + 1, 4))
    padded[group, rank] = boxes[candidates.rows]
    overlap = _worst_overlap(box_iou(padded, padded))
    return candidates.take(overlap[group, rank] <= settings.iou_threshold)


def _worst_overlap(iou: Tensor) -> Tensor:
    """(..., M, M) pairwise IoU in order of score → (..., M) each box's largest overlap with a better one, or 0."""
    if iou.shape[-1] == 0:
        return iou.sum(dim=-2)
    return iou.triu(diagonal=1).amax(dim=-2)
