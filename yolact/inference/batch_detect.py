"""Detection for all images of a batch at once, in tensors of fixed shapes: for GPUs, which wait at every other shape.

It gives what `yolact.inference.postprocess.detect` gives for each image. That one looks at as many candidates as an
image needs, and so asks the GPU for a number again and again. Here every image has the same number of candidates. An
image that needs more is not settled, and goes the other way.

Shapes: B images, A anchors, C classes, K prototypes, P pairs of box and class that are looked at, N detections at most.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolact.config import NmsConfig
from yolact.geometry.boxes import box_iou, decode_boxes
from yolact.inference.detections import DetectionRules
from yolact.inference.postprocess import without_low_scores
from yolact.network.model import RawPredictions

#: P. Every pair is compared with every other one, so twice as many cost four times the memory
_PAIRS = 1024

#: a key holds a score's bits above the place of its pair, so that sorting keys sorts pairs, equal scores by their place
_PLACE_BITS = 32
_LAST_PLACE = (1 << 31) - 1


class BatchInstances(NamedTuple):
    """Detections of B images, best score first; `valid` says which of the N places are taken."""

    boxes_relative: Tensor
    """(B, N, 4) as in `Instances`."""
    scores: Tensor
    """(B, N)."""
    labels: Tensor
    """(B, N) int64."""
    coefficients: Tensor
    """(B, N, K)."""
    valid: Tensor
    """(B, N) bool."""
    settled: Tensor
    """(B,) bool: False where more candidates are needed."""


class _Pairs(NamedTuple):
    """Pairs of box and class, best first."""

    rows: Tensor
    """(B, P) int64 into A."""
    labels: Tensor
    """(B, P) int64."""
    scores: Tensor
    """(B, P)."""
    there: Tensor
    """(B, P) bool: below the threshold there is none."""
    cut: Tensor
    """(B,): pairs with a score at or below this may be missing; −1 where none is."""


def most_detections(rules: DetectionRules) -> int:
    """N: how many detections an image can have at most."""
    settings, limit = rules.settings, rules.limit
    most = settings.top_k if settings.kind == "fast-cross-class" else settings.max_detections
    return most if limit is None else min(most, limit)


def fits(rules: DetectionRules) -> bool:
    """Whether `detect_batch` can find the detections: standard NMS has no fixed shapes, nor has a very large N."""
    return rules.settings.kind != "standard" and 2 * most_detections(rules) <= _PAIRS


def detect_batch(raw: RawPredictions, anchors: Tensor, rules: DetectionRules) -> BatchInstances:
    """The detections of all images of a batch; an image's do not depend on the others.

    Args:
        raw: float32.
        anchors: (A, 4) cxcywh, relative.
        rules: those for which `fits` is true.
    """
    settings = rules.settings
    floor = max(settings.score_floor, rules.score_threshold)
    scores = torch.softmax(raw.class_logits, dim=-1)[..., 1:]
    most = most_detections(rules)
    if settings.kind == "fast":
        pairs = _best_pairs(scores, floor, rules, _PAIRS)
    else:
        pairs = _best_rows(scores, floor, settings.top_k)
    boxes = decode_boxes(_rows_of(raw.box_deltas, pairs.rows), anchors[pairs.rows])
    kept = _keep(boxes, pairs, settings)
    if settings.kind != "fast" and rules.class_thresholds is not None:
        kept &= pairs.scores > scores.new_tensor(rules.class_thresholds)[pairs.labels]

    place = kept.cumsum(dim=1) - 1
    kept &= place < most
    # the last column takes what is not kept
    slots = torch.zeros((len(kept), most + 1), dtype=torch.int64, device=kept.device)
    positions = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    slots = slots.scatter(1, torch.where(kept, place, most), positions)[:, :most]
    count = kept.sum(dim=1)
    settled = (pairs.cut < 0) | ((kept & (pairs.scores > pairs.cut[:, None])).sum(dim=1) >= most)
    return BatchInstances(
        _rows_of(boxes, slots),
        pairs.scores.gather(1, slots),
        pairs.labels.gather(1, slots),
        _rows_of(raw.mask_coefficients, pairs.rows.gather(1, slots)),
        torch.arange(most, device=kept.device) < count[:, None],
        settled,
    )


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """(B, A, n) values and (B, P) rows → (B, P, n)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def _best_pairs(scores: Tensor, floor: float, rules: DetectionRules, count: int) -> _Pairs:
    """The `count` best pairs of each image above the thresholds, of anchors whose best score is above the floor."""
    _, anchors, classes = scores.shape
    best = above = scores.amax(dim=2)
    if rules.class_thresholds is not None:
        scores = without_low_scores(scores, rules.class_thresholds)
        best = scores.amax(dim=2)
    best = torch.where(above > floor, best, -1.0)
    # each of the best rows has a pair with at least the last one's score, so no other row has one of the best pairs
    top = best.topk(min(count, anchors), dim=1)
    picked = _rows_of(scores, top.indices)
    there = (top.values > 0)[..., None] & (picked > rules.score_threshold)
    label = torch.arange(classes, device=scores.device)
    place = label * anchors + top.indices[..., None]
    keys = torch.where(there, _keys(picked, place), 0).flatten(1)
    keys = keys.topk(min(count, keys.shape[1]), dim=1).values
    scores_of, place = _from_keys(keys)
    complete = keys[:, -1] == 0
    cut = torch.where(complete, -1.0, scores_of[:, -1])
    if top.indices.shape[1] < anchors:
        cut = torch.maximum(cut, top.values[:, -1])
    return _Pairs(place % anchors, place // anchors, scores_of, keys > 0, cut)


def _best_rows(scores: Tensor, floor: float, count: int) -> _Pairs:
    """Of each image the `count` anchors with the best scores above the floor, each with its best class."""
    best, labels = scores.max(dim=2)
    row = torch.arange(scores.shape[1], device=scores.device)
    keys = torch.where(best > floor, _keys(best, row), 0)
    keys = keys.topk(min(count, keys.shape[1]), dim=1).values
    scores_of, rows = _from_keys(keys)
    there = keys > 0
    rows = torch.where(there, rows, 0)
    return _Pairs(rows, labels.gather(1, rows), scores_of, there, scores_of.new_full((len(keys),), -1.0))


def _keys(scores: Tensor, places: Tensor) -> Tensor:
    """Scores above 0 and places → int64 that rise with the score, and fall with the place where scores are equal."""
    # the bits of floats above 0, read as integers, are in the order of the floats
    return (scores.contiguous().view(torch.int32).long() << _PLACE_BITS) | (_LAST_PLACE - places)


def _from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and places of `_keys`; score 0 and place 0 for a key of 0."""
    scores = (keys >> _PLACE_BITS).int().view(torch.float32)
    places = _LAST_PLACE - (keys & ((1 << _PLACE_BITS) - 1))
    return scores, torch.where(keys > 0, places, 0)


def _keep(boxes: Tensor, pairs: _Pairs, settings: NmsConfig) -> Tensor:
    """(B, P) bool: Fast NMS among the `top_k` best of each class, or, with "fast-cross-class", of all."""
    count = boxes.shape[1]
    earlier = torch.ones((count, count), dtype=torch.bool, device=boxes.device).triu(diagonal=1)
    rivals = earlier & pairs.there[:, :, None]
    if settings.kind == "fast":
        rivals &= pairs.labels[:, :, None] == pairs.labels[:, None, :]
    enters = pairs.there & (rivals.sum(dim=1) < settings.top_k)
    rivals &= enters[:, :, None]
    worst = torch.where(rivals, box_iou(boxes, boxes), 0.0).amax(dim=1)
    return enters & (worst <= settings.iou_threshold)
