"""Instance masks from prototypes and coefficients (paper, section 3.3).

Shapes: K prototypes of h × w, N detections, H × W the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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


#: prototype pixels by which a box is grown on each side before its mask is cut
CROP_PADDING = 1.0


def assemble_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """sigmoid(P · Cᵀ): prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) in 0..1, not cropped."""
    return torch.sigmoid(mask_logits(prototypes, coefficients))


def mask_logits(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """P · Cᵀ: prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) before their sigmoid."""
    count, height, width = prototypes.shape
    return (coefficients @ prototypes.reshape(count, -1)).view(-1, height, width)


def crop_regions(boxes_relative: Tensor, height: int, width: int) -> Tensor:
    """The pixels of a height × width map that cropping keeps.

    Args:
        boxes_relative: (N, 4) xyxy fractions; corners may be swapped or outside.
        height, width: of the prototypes.

    Returns:
        (N, 4) int64 x1, y1, x2, y2, ends excluded, within the map: pixels with x1 − 1 ≤ x < x2 + 1.
    """
    limit = boxes_relative.new_tensor([width, height])
    corners = boxes_relative.view(-1, 2, 2) * limit
    first = (corners.amin(dim=1) - CROP_PADDING).ceil().clamp(torch.zeros_like(limit), limit)
    end = (corners.amax(dim=1) + CROP_PADDING).ceil().clamp(torch.zeros_like(limit), limit)
    return torch.cat([first, end], dim=1).long()


def inside_regions(regions: Tensor, height: int, width: int) -> Tensor:
    """(N, height, width) bool: which pixels of a map lie in each of the regions (N, 4)."""
    rows = torch.arange(height, device=regions.device)[None, :, None]
    columns = torch.arange(width, device=regions.device)[None, None, :]
    x1, y1, x2, y2 = (regions[:, side, None, None] for side in range(4))
    return ((rows >= y1) & (rows < y2)) & ((columns >= x1) & (columns < x2))


def crop_masks(masks: Tensor, regions: Tensor) -> Tensor:
    """Masks (N, h, w) with everything outside their regions (N, 4) set to 0."""
    return masks * inside_regions(regions, *masks.shape[1:])


def whole_regions(count: int, height: int, width: int) -> Tensor:
    """(count, 4) regions that keep a whole height × width map: masks that are not cropped."""
    return torch.tensor([[0, 0, width, height]]).expand(count, 4)
