"""As `yolact.geometry.outlines`, for masks of several images at once: for GPUs, where each step costs the same for one.

The images may differ in size. Shapes: N masks of h × w, B images; M cells, J output columns of a cell at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from yolact.geometry.outlines import DOUBT, THRESHOLD, axis, corrected_rows, estimated_rows, sides_of_half, soft_corners

#: how many output columns of boundary cells are computed together; limits the memory for masks with many edges
_ITEMS_AT_ONCE = 8_000_000


class _Axes(NamedTuple):
    """`axis` for B images, the output elements of all images one after the other."""

    low: Tensor
    high: Tensor
    start: Tensor
    """(B,): where an image's elements begin."""
    target: Tensor
    """(B,): how many elements an image has."""
    first: Tensor
    """(B, source + 1)."""
    earliest: Tensor
    """(B, source + 1)."""
    widest: int
    """the most output elements between two source elements"""


class Flips(NamedTuple):
    """Where masks change."""

    keys: Tensor
    """rising mask · stride + column · H + row, int64, with the height H of the mask's image"""
    exact: Tensor
    """() bool: False if a row may be off, which rounding has never done"""


def stride_of(sizes: Sequence[tuple[int, int]]) -> int:
    """What separates the keys of two masks, for images of (H, W) `sizes`."""
    return max(height * width for height, width in sizes) + 1


def flips_of_batch(logits: Tensor, regions: Tensor, image: Tensor, sizes: Sequence[tuple[int, int]]) -> Flips:
    """Where masks change, on their device.

    Args:
        logits: (N, h, w) float32 masks before their sigmoid.
        regions: (N, 4) int64 x1, y1, x2, y2, ends excluded, on the masks' device.
        image: (N,) int64: the image that a mask belongs to.
        sizes: (H, W) of the B images.
    """
    _, h, w = logits.shape
    heights, widths = zip(*sizes, strict=True)
    xs, ys = _axes(w, widths, logits.device), _axes(h, heights, logits.device)
    stride = stride_of(sizes)
    sides = sides_of_half(logits, regions, -DOUBT, DOUBT)
    pairs = sides[:, :-1] + sides[:, 1:]
    mixed = (pairs[:, :, :-1] + pairs[:, :, 1:]) & 7
    cells = mixed.view(-1).nonzero()[:, 0]
    keys, exact = [], []
    for cell in cells.split(max(1, _ITEMS_AT_ONCE // xs.widest)):
        owner, row, column = cell // (w * (h + 1)), cell // w % (h + 1) - 1, cell % w
        corners = soft_corners(logits, regions[owner].T, torch.sigmoid, owner, row, column)
        of = image[owner]
        begin, end = xs.first[of, column], xs.first[of, column + 1]
        columns = begin[:, None] + torch.arange(xs.widest, device=cell.device)
        place = xs.start[of][:, None] + torch.minimum(columns, xs.target[of][:, None] - 1)
        low, high = xs.low[place], xs.high[place]
        upper_left, upper_right, lower_left, lower_right = (corner[:, None] for corner in corners)
        before = upper_left * low + upper_right * high
        after = lower_left * low + lower_right * high
        changes = (columns < end[:, None]) & ((before > THRESHOLD) != (after > THRESHOLD))
        item, which = changes.nonzero(as_tuple=True)
        of, found = of[item], columns[item, which]
        rows, settled = _crossings(row[item], before[item, which], after[item, which], ys, of)
        keys.append(owner[item] * stride + found * ys.target[of] + rows)
        exact.append(settled)
    return Flips(torch.cat(keys).sort().values, torch.stack(exact).all())


def _axes(source: int, targets: tuple[int, ...], device: torch.device) -> _Axes:
    parts = [axis(source, target, device) for target in targets]
    start, target, widest = _bounds(source, targets, device)
    return _Axes(
        torch.cat([part.low for part in parts]),
        torch.cat([part.high for part in parts]),
        start,
        target,
        torch.stack([part.first for part in parts]),
        torch.stack([part.earliest for part in parts]),
        widest,
    )


@lru_cache(maxsize=256)
def _bounds(source: int, targets: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, int]:
    """`start`, `target` and `widest` of `_Axes`."""
    sizes = torch.tensor(targets)
    start = sizes.cumsum(0) - sizes
    widest = max(int(axis(source, target, torch.device("cpu")).first.diff().max()) for target in set(targets))
    return start.to(device), sizes.to(device), widest


def _crossings(lower: Tensor, before: Tensor, after: Tensor, ys: _Axes, image: Tensor) -> tuple[Tensor, Tensor]:
    """As in `outlines`, with one correction of each row; also whether that was enough.

    An estimate is off by its rounding alone, so one correction has always been enough.
    """
    source = ys.first.shape[1] - 1
    target, start = ys.target[image], ys.start[image]
    bounds = ys.earliest[image, lower + 1], ys.first[image, lower + 1]
    state = after > THRESHOLD

    def changed(row: Tensor) -> Tensor:
        place = start + torch.minimum(row.clamp(min=0), target - 1)
        return (ys.low[place] * before + ys.high[place] * after > THRESHOLD) == state

    # for one image Python divides the two whole numbers, in float64 too
    rows = estimated_rows(lower, before, after, target.double() / source, bounds)
    rows, _ = corrected_rows(rows, changed, bounds)
    _, moved = corrected_rows(rows, changed, bounds)
    return rows, ~moved.any()
