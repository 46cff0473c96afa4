"""Raw predictions of one image → instances: detection as in the release, then masks (paper, section 3).

Shapes: A anchors, C classes, K prototypes of h × w, N detections, H × W the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from yolact.geometry.boxes import decode_boxes
from yolact.geometry.masks import crop_masks, crop_regions, mask_logits, whole_regions
from yolact.inference.detections import DetectionRules
from yolact.inference.nms import NMS_KINDS
from yolact.network.model import RawPredictions, Yolact

#: a margin far above the rounding of a softmax, and small enough to let few more anchors through
_LEAD_MARGIN = 1e-2


class Instances(NamedTuple):
    """Detections of one image, best score first."""

    boxes_relative: Tensor
    """(N, 4) xyxy fractions of the image as decoded: not clamped, corners not yet in order."""
    scores: Tensor
    """(N,) class probability."""
    labels: Tensor
    """(N,) int64, 0-based."""
    coefficients: Tensor
    """(N, K)."""


class InstanceMasks(NamedTuple):
    """Masks of N detections at prototype resolution."""

    logits: Tensor
    """(N, h, w) soft masks before their sigmoid; only what lies in `regions` counts."""
    regions: Tensor
    """(N, 4) int64 x1, y1, x2, y2 in prototype pixels, ends excluded."""
    mask_scores: Tensor | None
    """(N,) score × predicted IoU where the model rescores masks (YOLACT++)."""


def detect(raw: RawPredictions, index: int, anchors: Tensor, rules: DetectionRules) -> Instances:
    """The detections of image `index` of a batch; other images have no influence.

    Drops anchors whose best foreground score is at most the floor of the settings, then NMS decides. Scores at or below
    the threshold are left out before it: they would come after all others, and so never remove one. Thresholds of
    single classes come before NMS within classes. NMS across classes sees all classes, and they come after it.

    Args:
        raw: float32.
        anchors: (A, 4) cxcywh, relative.
    """
    settings = rules.settings
    floor = max(settings.score_floor, rules.score_threshold)
    candidates = _may_exceed(raw.class_logits[index], floor)
    scores = torch.softmax(raw.class_logits[index][candidates], dim=-1)[:, 1:]
    exceeds = scores.amax(dim=1) > floor
    candidates, scores = candidates[exceeds], scores[exceeds]
    boxes = decode_boxes(raw.box_deltas[index][candidates], anchors[candidates])
    across = settings.kind == "fast-cross-class"
    if rules.class_thresholds is not None and not across:
        scores = without_low_scores(scores, rules.class_thresholds)
    kept = NMS_KINDS[settings.kind](boxes, scores, settings, rules.score_threshold)
    if rules.class_thresholds is not None and across:
        kept = kept.take(kept.scores > kept.scores.new_tensor(rules.class_thresholds)[kept.labels])
    kept = kept.take(slice(rules.limit))
    return Instances(boxes[kept.rows], kept.scores, kept.labels, raw.mask_coefficients[index][candidates[kept.rows]])


def without_low_scores(scores: Tensor, class_thresholds: tuple[float, ...]) -> Tensor:
    """(..., C) scores, with −1 for those that do not exceed the threshold of their class."""
    return torch.where(scores > scores.new_tensor(class_thresholds), scores, -1.0)


def _may_exceed(class_logits: Tensor, floor: float) -> Tensor:
    """Anchors (M,) whose best foreground score may be above `floor`, found without a softmax.

    The score of a class is at most sigmoid(its logit − the background's logit), its score if the two were alone.
    """
    if floor == 0:
        return torch.arange(len(class_logits), device=class_logits.device)
    lead = class_logits[:, 1:].amax(dim=1) - class_logits[:, 0]
    least = math.log(floor / (1 - floor)) if floor < 1 else math.inf
    return (lead > least - _LEAD_MARGIN).nonzero()[:, 0]


def instance_masks(model: Yolact, prototypes: Tensor, instances: Instances) -> InstanceMasks:
    """Assemble, crop and (YOLACT++) rescore the masks of one image's instances.

    Args:
        model: says whether masks are cropped and rescored.
        prototypes: (K, h, w) of the image.
    """
    logits = mask_logits(prototypes, instances.coefficients)
    count, height, width = logits.shape
    if model.config.crop_masks:
        regions = crop_regions(instances.boxes_relative, height, width)
    else:
        regions = whole_regions(count, height, width)
    mask_scores = None
    if model.mask_scoring is not None:
        ious = model.mask_scoring(crop_masks(torch.sigmoid(logits), regions.to(logits.device)))
        mask_scores = instances.scores * ious.gather(1, instances.labels[:, None])[:, 0]
    return InstanceMasks(logits, regions, mask_scores)
