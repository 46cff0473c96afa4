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


class RegionPixels(NamedTuple):
    """The pixels of P rectangles, one rectangle after the other: N entries."""

    instance: Tensor
    """(N,) int64 in 0…P−1"""
    row: Tensor
    """(N,) int64"""
    column: Tensor
    """(N,) int64"""


def region_pixels(first: Tensor, last: Tensor) -> RegionPixels:
    """List the pixels of rectangles; `first` (P, 2) and `last` (P, 2) int64 are column, row, the last ones excluded."""
    columns, rows = (last - first).clamp(min=0).unbind(dim=1)
    counts = columns * rows
    instance = torch.repeat_interleave(torch.arange(len(first), device=first.device), counts)
    offset = torch.arange(len(instance), device=first.device) - (counts.cumsum(0) - counts)[instance]
    down = torch.div(offset, columns[instance], rounding_mode="floor")
    return RegionPixels(instance, first[instance, 1] + down, first[instance, 0] + offset - down * columns[instance])


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize without antialiasing (half-pixel centres), binarised above 0.5.

    Only the surroundings of each object are computed: with hundreds of small objects, nearly all of the pixels are
    known to be 0. Masks (G, H, W) bool; returns (G, height, width) bool.
    """
    if masks.shape[1:] == (height, width):
        return masks
    resized = masks.new_zeros((len(masks), height, width))
    if not resized.numel():
        return resized
    top, bottom, down = _bilinear_neighbours(masks.shape[1], height, masks.device)
    left, right, across = _bilinear_neighbours(masks.shape[2], width, masks.device)
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    first_row, last_row = _extent(rows[:, top] | rows[:, bottom])
    first_column, last_column = _extent(columns[:, left] | columns[:, right])
    instance, row, column = region_pixels(
        torch.stack([first_column, first_row], dim=1), torch.stack([last_column, last_row], dim=1)
    )

    def blended(source_row: Tensor) -> Tensor:
        first = masks[instance, source_row, left[column]].float()
        second = masks[instance, source_row, right[column]].float()
        return first * (1 - across[column]) + second * across[column]

    value = blended(top[row]) * (1 - down[row]) + blended(bottom[row]) * down[row]
    resized[instance, row, column] = value > 0.5
    return resized


def _extent(touched: Tensor) -> tuple[Tensor, Tensor]:
    """First index and one past the last index of True per row of (G, n) bool; an empty range where there is none."""
    marks = touched.to(torch.uint8)
    first = marks.argmax(dim=1)
    last = touched.shape[1] - marks.flip(1).argmax(dim=1)
    return first, torch.where(touched.any(dim=1), last, first)


def _bilinear_neighbours(source: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    position = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (source / size) - 0.5
    position = position.clamp(min=0)
    lower = position.long().clamp(max=source - 1)
    return lower, (lower + 1).clamp(max=source - 1), position - lower


def crop_pixels(boxes_relative: Tensor, height: int, width: int) -> RegionPixels:
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
    return region_pixels(first, last)


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
    wanted = resize_masks(masks, height, width)[target_index[crops.instance], crops.row, crops.column]
    # NaN has to come out as a loss that training can name, not as an assertion of the kernel
    defined = probability.nan_to_num(nan=0.5)
    pixel_loss = F.binary_cross_entropy(defined, wanted.to(probability.dtype), reduction="none")
    sides = (boxes[:, 2:] - boxes[:, :2]) * boxes.new_tensor([width, height])
    per_pixel = pixel_loss / sides.prod(dim=1)[target_index[crops.instance]]
    return per_pixel.sum() + 0 * probability.sum()


def _assemble_pixels(prototypes: Tensor, coefficients: Tensor, crops: RegionPixels) -> Tensor:
    pixels = F.embedding(crops.row * prototypes.shape[2] + crops.column, prototypes.flatten(1).t())
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
    probability = prototypes.new_zeros(len(target_index), height, width)
    probability[crops.instance, crops.row, crops.column] = _assemble_pixels(prototypes, coefficients, crops).sigmoid()
    predicted = probability.detach() > 0.5
    wanted = wanted_masks[target_index]
    true_iou = (predicted & wanted).sum(dim=(1, 2)) / (predicted | wanted).sum(dim=(1, 2))
    iou = rescoring(probability)
    return F.smooth_l1_loss(iou.gather(1, labels[target_index][:, None]).squeeze(1), true_iou, reduction="sum")
