"""Instance masks from prototypes and coefficients (paper, section 3.3).

Shapes: K prototypes of h × w, N detections, H × W the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolact.geometry.resampling import bilinear_neighbours

#: prototype pixels by which a box is grown on each side before its mask is cut
CROP_PADDING = 1.0


class RegionPixels(NamedTuple):
    """The pixels of P rectangles, one rectangle after the other: N entries."""

    instance: Tensor
    """(N,) int64 in 0…P−1"""
    row: Tensor
    """(N,) int64"""
    column: Tensor
    """(N,) int64"""


def region_pixels(first: Tensor, last: Tensor, total: int | None = None) -> RegionPixels:
    """The pixels of P rectangles.

    Args:
        first: (P, 2) int64 column and row of the first pixel.
        last: (P, 2) int64 column and row after the last pixel. A rectangle with `last` at or before `first` is empty.
        total: N where it is known: then a GPU need not be asked, which would be a wait.
    """
    columns, rows = (last - first).clamp(min=0).unbind(dim=1)
    counts = columns * rows
    places = torch.arange(len(first), device=first.device)
    instance = torch.repeat_interleave(places, counts, output_size=total)
    offset = torch.arange(len(instance), device=first.device) - (counts.cumsum(0) - counts)[instance]
    down = torch.div(offset, columns[instance], rounding_mode="floor")
    return RegionPixels(instance, first[instance, 1] + down, first[instance, 0] + offset - down * columns[instance])


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (G, H, W) bool → (G, height, width) bool: bilinear, half-pixel centres, no antialiasing, above 0.5.

    Computes only the pixels around each object. Of hundreds of small objects nearly all pixels are 0.
    """
    if masks.shape[1:] == (height, width):
        return masks
    resized = masks.new_zeros((len(masks), height, width))
    if not resized.numel():
        return resized
    top, bottom, down = _neighbours(masks.shape[1], height, masks.device)
    left, right, across = _neighbours(masks.shape[2], width, masks.device)
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


def _neighbours(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`bilinear_neighbours` as tensors on a device."""
    # copies: torch would warn if the shared arrays were read-only, and must not change them
    lower, upper, weight = (torch.tensor(array, device=device) for array in bilinear_neighbours(source, target))
    return lower, upper, weight


def crop_pixels(boxes_relative: Tensor, height: int, width: int) -> RegionPixels:
    """The pixels of `crop_regions`, listed box after box."""
    first, last = crop_regions(boxes_relative, height, width).split(2, dim=1)
    return region_pixels(first, last)


def assemble_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """sigmoid(P · Cᵀ): prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) in 0..1, not cropped."""
    return torch.sigmoid(mask_logits(prototypes, coefficients))


def mask_logits(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """P · Cᵀ: prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) before their sigmoid."""
    count, height, width = prototypes.shape
    return (coefficients @ prototypes.reshape(count, -1)).view(-1, height, width)


def crop_regions(boxes_relative: Tensor, height: int, width: int) -> Tensor:
    """The rectangle of a height × width map that cropping keeps: the one crop rule of training and inference.

    Args:
        boxes_relative: (N, 4) xyxy fractions; corners may be swapped or outside the map.
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
