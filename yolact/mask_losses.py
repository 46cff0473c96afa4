"""Mask loss and mask-rescoring loss of one image (paper section 3.2, YOLACT++ section 6).

K prototypes, G targets, P positive anchors. Masks are compared at the prototypes' resolution h × w.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: a ground-truth mask of so many prototype pixels or fewer says nothing about the rescoring net
MIN_RESCORED_AREA = 25


class CropPixels(NamedTuple):
    """The pixels inside P crops, one after the other, flattened to N entries."""

    instance: Tensor
    """(N,) int64 in 0…P−1"""
    pixel: Tensor
    """(N,) int64 row · width + column"""


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize without antialiasing (half-pixel centres), binarised above 0.5.

    Only the two rows and two columns that each output pixel blends are read, so that hundreds of full-size masks
    need not be turned to floats. Masks (G, H, W) bool; returns (G, height, width) bool.
    """
    if masks.shape[1:] == (height, width):
        return masks
    top, bottom, down = _bilinear_neighbours(masks.shape[1], height, masks.device)
    left, right, across = _bilinear_neighbours(masks.shape[2], width, masks.device)

    def row(index: Tensor) -> Tensor:
        rows = masks.index_select(1, index)
        first, second = rows.index_select(2, left).float(), rows.index_select(2, right).float()
        return first * (1 - across) + second * across

    return row(top) * (1 - down)[:, None] + row(bottom) * down[:, None] > 0.5


def _bilinear_neighbours(source: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    position = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (source / size) - 0.5
    position = position.clamp(min=0)
    lower = position.long().clamp(max=source - 1)
    return lower, (lower + 1).clamp(max=source - 1), position - lower


def crop_pixels(boxes_relative: Tensor, height: int, width: int) -> CropPixels:
    """The pixels of each box grown by 1 px on each side: x1 − 1 ≤ column < x2 + 1, clamped to the map.

    Args:
        boxes_relative: (P, 4) xyxy.
        height: rows of the map.
        width: columns of the map.
    """
    size = boxes_relative.new_tensor([width, height, width, height])
    boxes = boxes_relative * size
    first = (torch.minimum(boxes[:, :2], boxes[:, 2:]) - 1).clamp(min=0).ceil().long()
    last = torch.minimum(torch.maximum(boxes[:, :2], boxes[:, 2:]) + 1, size[:2]).ceil().long()
    columns, rows = (last - first).clamp(min=0).unbind(dim=1)
    counts = columns * rows
    instance = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), counts)
    offset = torch.arange(len(instance), device=boxes.device) - (counts.cumsum(0) - counts)[instance]
    row = first[instance, 1] + torch.div(offset, columns[instance], rounding_mode="floor")
    column = first[instance, 0] + offset % columns[instance]
    return CropPixels(instance, row * width + column)


def mask_loss(prototypes: Tensor, coefficients: Tensor, boxes: Tensor, masks: Tensor, target_index: Tensor) -> Tensor:
    """Sum over positives of the pixel BCE inside the ground-truth crop ÷ the box's area in prototype pixels.

    Only the pixels inside the crops are assembled: hundreds of small objects cost no more than a few large ones.

    Args:
        prototypes: (K, h, w).
        coefficients: (P, K) of the positive anchors.
        boxes: (G, 4) xyxy relative ground truth.
        masks: (G, H, W) bool ground truth of the whole image.
        target_index: (P,) int64, the ground truth of each positive.

    Returns:
        A scalar, 0 where P = 0.
    """
    _, height, width = prototypes.shape
    crops = crop_pixels(boxes[target_index], height, width)
    # BCE on probabilities, not on logits: the release saturates, and its clamped logarithm is part of its numbers
    probability = _assemble_pixels(prototypes, coefficients, crops).sigmoid()
    wanted = resize_masks(masks, height, width).flatten(1)[target_index[crops.instance], crops.pixel]
    pixel_loss = F.binary_cross_entropy(probability, wanted.to(probability.dtype), reduction="none")
    sides = (boxes[:, 2:] - boxes[:, :2]) * boxes.new_tensor([width, height])
    return (pixel_loss / sides.prod(dim=1)[target_index[crops.instance]]).sum()


def _assemble_pixels(prototypes: Tensor, coefficients: Tensor, crops: CropPixels) -> Tensor:
    pixels = F.embedding(crops.pixel, prototypes.flatten(1).t())
    return (pixels * coefficients.index_select(0, crops.instance)).sum(dim=1)


def mask_iou_loss(
    rescoring: nn.Module,
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    masks: Tensor,
    labels: Tensor,
    target_index: Tensor,
) -> Tensor:
    """Smooth L1 between the rescoring net's and the true IoU of each positive's predicted mask, summed (YOLACT++).

    Args:
        rescoring: maps (P, h, w) cropped probabilities to (P, C) IoUs.
        prototypes: (K, h, w).
        coefficients: (P, K).
        boxes: (G, 4) xyxy relative.
        masks: (G, H, W) bool.
        labels: (G,) int64 0-based.
        target_index: (P,) int64.

    Returns:
        A scalar; 0 where no ground-truth mask has more than 25 px at prototype resolution.
    """
    _, height, width = prototypes.shape
    wanted_masks = resize_masks(masks, height, width)
    large = wanted_masks.flatten(1).sum(dim=1)[target_index] > MIN_RESCORED_AREA
    coefficients, target_index = coefficients[large], target_index[large]
    if not len(target_index):
        return sum((parameter.sum() * 0 for parameter in rescoring.parameters()), prototypes.sum() * 0)
    crops = crop_pixels(boxes[target_index], height, width)
    probability = prototypes.new_zeros(len(target_index), height * width)
    probability[crops.instance, crops.pixel] = _assemble_pixels(prototypes, coefficients, crops).sigmoid()
    predicted = probability.detach() > 0.5
    wanted = wanted_masks.flatten(1)[target_index]
    true_iou = (predicted & wanted).sum(dim=1) / (predicted | wanted).sum(dim=1)
    iou = rescoring(probability.view(-1, height, width))
    return F.smooth_l1_loss(iou.gather(1, labels[target_index][:, None]).squeeze(1), true_iou, reduction="sum")
