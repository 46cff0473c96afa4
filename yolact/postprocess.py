"""Raw predictions of one image → instances: detection as in the release, then masks (paper, section 3).

Shapes: A anchors, C classes, K prototypes of h × w, N detections, H × W the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolact.boxes import decode_boxes
from yolact.config import NmsConfig
from yolact.masks import assemble_masks, crop_masks, crop_regions, whole_regions
from yolact.model import RawPredictions, Yolact
from yolact.nms import Nms


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


class SoftMasks(NamedTuple):
    """Masks of N detections at prototype resolution."""

    masks: Tensor
    """(N, h, w) in 0..1; only what lies in `regions` counts."""
    regions: Tensor
    """(N, 4) int64 x1, y1, x2, y2 in prototype pixels, ends excluded."""
    mask_scores: Tensor | None
    """(N,) score × predicted IoU where the model rescores masks (YOLACT++)."""


def detect(
    raw: RawPredictions, index: int, anchors: Tensor, settings: NmsConfig, nms: Nms, score_threshold: float = 0.0
) -> Instances:
    """Decide what is in image `index` of a batch; its neighbours have no influence.

    Anchors whose best foreground score is at most `settings.score_floor` are dropped, then `nms` decides. Scores at or
    below the threshold are left out from the start: they could only come after the others and never remove one.

    Args:
        raw: float32.
        anchors: (A, 4) cxcywh, relative.
    """
    scores = torch.softmax(raw.class_logits[index], dim=-1)[:, 1:]
    floor = max(settings.score_floor, score_threshold)
    candidates = (scores.amax(dim=1) > floor).nonzero()[:, 0]
    boxes = decode_boxes(raw.box_deltas[index][candidates], anchors[candidates])
    kept = nms(boxes, scores[candidates], settings, score_threshold)
    return Instances(boxes[kept.rows], kept.scores, kept.labels, raw.mask_coefficients[index][candidates[kept.rows]])


def soft_masks(model: Yolact, prototypes: Tensor, instances: Instances) -> SoftMasks:
    """Assemble, crop and (YOLACT++) rescore the masks of one image's instances.

    Args:
        model: says whether masks are cropped and rescored.
        prototypes: (K, h, w) of the image.
    """
    masks = assemble_masks(prototypes, instances.coefficients)
    count, height, width = masks.shape
    if model.config.crop_masks:
        regions = crop_regions(instances.boxes_relative, height, width)
    else:
        regions = whole_regions(count, height, width)
    mask_scores = None
    if model.mask_scoring is not None:
        ious = model.mask_scoring(crop_masks(masks, regions.to(masks.device)))
        mask_scores = instances.scores * ious.gather(1, instances.labels[:, None])[:, 0]
    return SoftMasks(masks, regions, mask_scores)
