"""The simple path from raw predictions to masks, with the steps of the original release.

It computes a softmax over every anchor and class, makes full-size masks, and encodes them by pycocotools. Benchmarks
and tests compare `yolact.inference.postprocess` and `yolact.geometry.rle` with it.

Shapes: A anchors, C classes, K prototypes of h × w, M candidates, N detections, H × W the image.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from yolact.config import NmsConfig
from yolact.geometry.boxes import box_iou, decode_boxes
from yolact.geometry.masks import assemble_masks, crop_masks, crop_regions
from yolact.geometry.outlines import THRESHOLD
from yolact.geometry.rle import Rle
from yolact.inference.postprocess import Instances
from yolact.network.model import RawPredictions


def simple_detect(
    raw: RawPredictions, index: int, anchors: Tensor, settings: NmsConfig, score_threshold: float = 0.0
) -> Instances:
    """The result of `yolact.inference.postprocess.detect` with Fast NMS, computed for every box, score and class."""
    scores = torch.softmax(raw.class_logits[index], dim=-1)[:, 1:]
    boxes = decode_boxes(raw.box_deltas[index], anchors)
    keep = scores.amax(dim=1) > settings.score_floor
    boxes, scores, coefficients = boxes[keep], scores[keep], raw.mask_coefficients[index][keep]
    by_class, rows = scores.T.sort(dim=1, descending=True, stable=True)
    by_class, rows = by_class[:, : settings.top_k], rows[:, : settings.top_k]
    overlap = box_iou(boxes[rows], boxes[rows]).triu(diagonal=1)
    survives = (overlap.amax(dim=1) if overlap.numel() else overlap.sum(dim=1)) <= settings.iou_threshold
    labels, places = survives.nonzero(as_tuple=True)
    found = by_class[labels, places]
    order = found.argsort(descending=True, stable=True)[: settings.max_detections]
    order = order[found[order] > score_threshold]
    kept = rows[labels[order], places[order]]
    return Instances(boxes[kept], found[order], labels[order], coefficients[kept])


def simple_masks(
    prototypes: Tensor, instances: Instances, height: int, width: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Masks (N, H, W) uint8: assembled, cropped, upsampled and thresholded at full size.

    The release does this in float32. The result in float64 defines the result of `yolact.geometry.rle`.
    """
    masks = assemble_masks(prototypes, instances.coefficients)
    masks = crop_masks(masks, crop_regions(instances.boxes_relative, *masks.shape[1:]))
    full = F.interpolate(masks.to(dtype)[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    return (full > (THRESHOLD if dtype == torch.float64 else 0.5)).to(torch.uint8)


def simple_rles(masks: Tensor) -> list[Rle]:
    """RLE dicts of (N, H, W) uint8 masks, one after the other."""
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in masks.numpy()]
