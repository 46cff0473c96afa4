"""Non-maximum suppression: Fast NMS (paper, section 3.3), its cross-class variant, and the standard one.

All three take boxes (A, 4) xyxy and foreground scores (A, C) of one image. They give `Kept`, best score first. Of equal
scores the lower label comes first, then the lower row, so that the same input always gives the same order.

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
    """The boxes that stay: for each its row in the input, its label and its score."""

    rows: Tensor
    """(N,) int64 into A."""
    labels: Tensor
    """(N,) int64, 0-based."""
    scores: Tensor
    """(N,)."""

    def take(self, index: Tensor | slice) -> Kept:
        return Kept(self.rows[index], self.labels[index], self.scores[index])


#: Of each class, how many times `top_k` pairs enter standard NMS. A box in a crowd has dozens of candidates around it,
#: and a small number would leave its neighbours out; docs/decisions.md says how this one was chosen.
STANDARD_FACTOR = 40

#: How many times `max_detections` pairs are looked at first, and by what the number grows where that was too few.
_FIRST_SHARE, _GROWTH = 4, 4

Nms = Callable[[Tensor, Tensor, NmsConfig, float], Kept]


def fast_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Class-wise Fast NMS: of the `top_k` best boxes of each class, drop a box that overlaps any better one.

    The better one counts even if it is dropped itself. Gives the `max_detections` best over all classes whose score is
    above the threshold. With a low threshold, low scores fill up the list, as in the release.
    """
    # A box's fate depends on better ones of its class alone, so that the best pairs can be settled without the rest.
    share = _FIRST_SHARE * settings.max_detections
    while True:
        candidates = _best_candidates(scores, score_threshold, share)
        kept = _suppress_within_classes(boxes, candidates, settings)
        if len(candidates.rows) < share or share >= scores.numel() or len(kept.rows) >= settings.max_detections:
            return kept.take(slice(settings.max_detections))
        share *= _GROWTH


def cross_class_fast_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Fast NMS over all classes at once: each box keeps its best class only, and the `top_k` best boxes enter.

    Gives all that survive: `max_detections` does not limit them, as in the release.
    """
    if scores.shape[0] == 0:
        return _candidates(scores, score_threshold)
    best, labels = scores.max(dim=1)
    rows = (best > score_threshold).nonzero()[:, 0]
    candidates = _best_first(Kept(rows, labels[rows], best[rows])).take(slice(settings.top_k))
    overlap = box_iou(boxes[candidates.rows], boxes[candidates.rows])
    return candidates.take(_worst_overlap(overlap) <= settings.iou_threshold)


def standard_nms(boxes: Tensor, scores: Tensor, settings: NmsConfig, score_threshold: float = 0.0) -> Kept:
    """Class-wise greedy NMS of the pairs above `score_floor` and the threshold; gives the `max_detections` best.

    Of each class the `STANDARD_FACTOR * top_k` best pairs enter, so that the work is bounded for any scores: a model
    after a few steps of training can score every anchor above the floor.
    """
    candidates = _candidates(scores, max(settings.score_floor, score_threshold))
    candidates = candidates.take(_ranks(candidates.labels) < STANDARD_FACTOR * settings.top_k)
    # A box's fate depends on better ones of its class alone, so that the best pairs can be settled without the rest.
    share = _FIRST_SHARE * settings.max_detections
    while True:
        best = candidates.take(slice(share))
        # torchvision shifts the boxes of each class apart; in double that costs no accuracy
        kept = batched_nms(boxes[best.rows].double(), best.scores.double(), best.labels, settings.iou_threshold)
        if len(kept) >= settings.max_detections or share >= len(candidates.rows):
            return best.take(kept.sort().values[: settings.max_detections])
        share *= _GROWTH


NMS_KINDS: dict[NmsKind, Nms] = {"fast": fast_nms, "fast-cross-class": cross_class_fast_nms, "standard": standard_nms}


def _candidates(scores: Tensor, score_threshold: float) -> Kept:
    """All pairs of box and class above the threshold, best first."""
    labels, rows = (score_threshold < scores.T).nonzero(as_tuple=True)
    return _best_first(Kept(rows, labels, scores[rows, labels]))


def _best_candidates(scores: Tensor, score_threshold: float, share: int) -> Kept:
    """The `share` best of `_candidates`, and all others with the score of the last one."""
    rows = None
    if len(scores) > share:
        # each of the `share` best rows has a pair with at least this score, so no other row has one of the best pairs
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


def _ranks(labels: Tensor) -> Tensor:
    """(M,) labels of candidates in order of score → (M,) the place of each in its class, from 0."""
    by_label = labels.argsort(stable=True)
    count = torch.bincount(labels)
    starts = count.cumsum(0) - count
    rank = torch.empty_like(labels)
    rank[by_label] = torch.arange(len(labels), device=labels.device) - starts[labels[by_label]]
    return rank


def _suppress_within_classes(boxes: Tensor, candidates: Kept, settings: NmsConfig) -> Kept:
    """Fast NMS of the `top_k` best of each class. Candidates are in order of score; classes are padded to one size."""
    if len(candidates.rows) == 0:
        return candidates
    rank = _ranks(candidates.labels)
    enters = rank < settings.top_k
    candidates, rank = candidates.take(enters), rank[enters]
    present, group = torch.unique(candidates.labels, return_inverse=True)
    padded = boxes.new_zeros((len(present), int(rank.max()) + 1, 4))
    padded[group, rank] = boxes[candidates.rows]
    overlap = _worst_overlap(box_iou(padded, padded))
    return candidates.take(overlap[group, rank] <= settings.iou_threshold)


def _worst_overlap(iou: Tensor) -> Tensor:
    """(..., M, M) pairwise IoU, boxes in order of score → (..., M) largest IoU of each box with a better one, or 0."""
    if iou.shape[-1] == 0:
        return iou.sum(dim=-2)
    return iou.triu(diagonal=1).amax(dim=-2)
