"""Where soft masks, upsampled to an image's size, change between outside and inside.

Upsampling is bilinear. Along an output column a mask therefore changes linearly between two prototype rows, and crosses
0.5 at most once between them. Between four prototype pixels on the same side of 0.5 it never crosses. So it is enough
to follow the outline at the prototypes' size and to compute where each crossing lies: the work grows with the outline,
not with W · H. Everything is computed for all masks at once, on their device.

The result is the same, bit for bit, as `torch.nn.functional.interpolate` of the masks in float64 and `> THRESHOLD`. The
weights come from that function (it interpolates the identity matrix), and each crossing is checked by computing the
pixels on both sides of it. Rounding may differ (order of additions, fused multiply-adds), far below the step of float32
masks. That would show only where a value is exactly 0.5, which a sigmoid is where all prototypes are 0. THRESHOLD
therefore lies slightly above 0.5.

Shapes: N masks of h × w, H × W the image. A "flip" is a pixel where a mask changes, going down the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yolact.geometry.masks import inside_regions

#: "above 0.5" for values computed in float64 from float32 masks, whose step at 0.5 is 6e-8
THRESHOLD = 0.5 + 1e-9

#: a logit nearer to 0 than this may have a sigmoid on the other side of 0.5, by rounding
DOUBT = 1e-6

#: how many output columns of boundary cells are computed together; limits the memory for masks with many edges
_ITEMS_AT_ONCE = 1_000_000


def flips_of_logits(logits: Tensor, regions: Tensor, height: int, width: int) -> np.ndarray:
    """Where masks change. Takes sigmoids along the outlines only.

    Args:
        logits: (N, h, w) float32 masks before their sigmoid.
        regions: (N, 4) int64 x1, y1, x2, y2, ends excluded: a mask is 0 outside of its region.
        height, width: H and W.

    Returns:
        Rising mask · (H · W + 1) + column · H + row, int64; an even number of equal ones cancels itself.
    """
    regions = regions.to(logits.device)
    sides = sides_of_half(logits, regions, -DOUBT, DOUBT)
    return find_flips(logits, regions, sides, torch.sigmoid, height, width)


class Axis(NamedTuple):
    """Bilinear resizing along an axis: output pixel p is low[p] · source[lower[p]] + high[p] · source[lower[p] + 1]."""

    low: Tensor
    """(target,) float64."""
    high: Tensor
    first: Tensor
    """(source + 1,): the first output pixel at or after each source element; last, the number of output pixels."""
    earliest: Tensor
    """(source + 1,): for source elements −1 … source − 1, the first output pixel that may differ from the element."""


@lru_cache(maxsize=64)
def axis(source: int, target: int, device: torch.device) -> Axis:
    """The weights of resizing `source` elements to `target`, as PyTorch computes them."""
    identity = torch.eye(source, dtype=torch.float64)[None, None]
    weights = F.interpolate(identity, (target, source), mode="bilinear", align_corners=False)[0, 0].numpy()
    lower = (weights > 0).argmax(axis=1)
    pixels = np.arange(target)
    low = weights[pixels, lower]
    high = np.where(lower < source - 1, weights[pixels, np.minimum(lower + 1, source - 1)], 0.0)
    first = np.searchsorted(lower, np.arange(source + 1))
    earliest = np.concatenate([[0], first[: source - 1], [target]])
    return Axis(*(torch.from_numpy(array).to(device) for array in (low, high, first, earliest)))


def sides_of_half(values: Tensor, regions: Tensor, low: float, high: float) -> Tensor:
    """(N, h + 2, w + 1) uint8: 0 below, 2 above, 1 between `low` and `high`; 0 outside the regions.

    A row of zeros lies above and below, a column to the right.
    """
    if values.device.type != "cpu":
        return sides_in_tensors(values, regions, low, high)
    count, h, w = values.shape
    sides = torch.zeros((count, h + 2, w + 1), dtype=torch.uint8)
    # one mask at a time with numpy: regions are small, and a numpy view costs a microsecond
    source, target = values.detach().numpy(), sides.numpy()
    for index, (x1, y1, x2, y2) in enumerate(regions.tolist()):
        region = source[index, y1:y2, x1:x2]
        np.add(region > low, region > high, out=target[index, y1 + 1 : y2 + 1, x1:x2], dtype=np.uint8)
    return sides


def sides_in_tensors(values: Tensor, regions: Tensor, low: float, high: float) -> Tensor:
    """`sides_of_half`, all masks at once: for GPUs."""
    count, h, w = values.shape
    sides = torch.zeros((count, h + 2, w + 1), dtype=torch.uint8, device=values.device)
    inside = inside_regions(regions, h, w)
    sides[:, 1:-1, :-1] = ((values > low) & inside).to(torch.uint8) + ((values > high) & inside)
    return sides


def find_flips(
    values: Tensor, regions: Tensor, sides: Tensor, soften: Callable[[Tensor], Tensor], height: int, width: int
) -> np.ndarray:
    """Flips of all masks. Looks only at cells whose four corners are not all on the same side of one half."""
    _, h, w = values.shape
    xs, ys = axis(w, width, values.device), axis(h, height, values.device)
    pairs = sides[:, :-1] + sides[:, 1:]
    # four corners below give 0, four above give 8
    mixed = (pairs[:, :, :-1] + pairs[:, :, 1:]) & 7
    cells = mixed.view(-1).nonzero()[:, 0]
    keys = []
    for cell in cells.split(max(1, _ITEMS_AT_ONCE // (width // w + 2))):
        owner, row, column = cell // (w * (h + 1)), cell // w % (h + 1) - 1, cell % w
        corners = soft_corners(values, regions[owner].T, soften, owner, row, column)
        start = xs.first[column]
        per_cell = xs.first[column + 1] - start
        item = torch.arange(len(cell), device=cell.device).repeat_interleave(per_cell)
        offset = start - (per_cell.cumsum(0) - per_cell)
        columns = torch.arange(len(item), device=cell.device) + offset[item]
        low, high = xs.low[columns], xs.high[columns]
        before = corners[0][item] * low + corners[1][item] * high
        after = corners[2][item] * low + corners[3][item] * high
        changes = ((before > THRESHOLD) != (after > THRESHOLD)).nonzero()[:, 0]
        item, columns = item[changes], columns[changes]
        rows = _crossings(row[item], before[changes], after[changes], ys)
        keys.append(owner[item] * (height * width + 1) + columns * height + rows)
    return np.sort(torch.cat(keys).cpu().numpy())


def soft_corners(
    values: Tensor, bounds: Tensor, soften: Callable[[Tensor], Tensor], owner: Tensor, row: Tensor, column: Tensor
) -> list[Tensor]:
    """float64 soft values of cells' corners: upper left, upper right, lower left, lower right.

    `bounds` (4, M) are the regions of the cells' masks. A corner outside of its region is 0.
    """
    _, h, w = values.shape
    x1, y1, x2, y2 = bounds.contiguous()
    flat, place = values.reshape(-1), (owner * h + row) * w + column
    in_columns = [(column + right >= x1) & (column + right < x2) for right in (0, 1)]
    corners = []
    for down in (0, 1):
        in_row = (row + down >= y1) & (row + down < y2)
        for right in (0, 1):
            inside = in_row & in_columns[right]
            found = soften(flat[(place + down * w + right) * inside])
            corners.append(torch.where(inside, found, 0.0).double())
    return corners


def _crossings(lower: Tensor, before: Tensor, after: Tensor, ys: Axis) -> Tensor:
    """The first output row that has the new state, between source rows `lower` and `lower + 1`.

    `before` and `after` are the values of these two rows. Row −1 lies above the image, row h below it. If no output row
    between the two has the new state, the first row after them is given.
    """
    source, target = len(ys.first) - 1, len(ys.low)
    bounds = ys.earliest[lower + 1], ys.first[lower + 1]
    state = after > THRESHOLD

    def changed(row: Tensor) -> Tensor:
        row = row.clamp(0, target - 1)
        return (ys.low[row] * before + ys.high[row] * after > THRESHOLD) == state

    rows = estimated_rows(lower, before, after, target / source, bounds)
    while True:
        rows, moved = corrected_rows(rows, changed, bounds)
        if not moved.any():
            return rows


def estimated_rows(
    lower: Tensor, before: Tensor, after: Tensor, scale: float | Tensor, bounds: tuple[Tensor, Tensor]
) -> Tensor:
    """The rows of `_crossings`, up to rounding. `scale` is float64: output rows for each source row."""
    share = (THRESHOLD - before) / (after - before)
    rows = ((lower + share + 0.5) * scale - 0.5).ceil().long()
    return torch.minimum(torch.maximum(rows, bounds[0]), bounds[1])


def corrected_rows(
    rows: Tensor, changed: Callable[[Tensor], Tensor], bounds: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Rows moved by one where they are not the first ones within `bounds` that `changed`; and which ones were moved."""
    earliest, latest = bounds
    too_late = (rows > earliest) & changed(rows - 1)
    too_early = (rows < latest) & ~changed(rows) & ~too_late
    return rows - too_late.long() + too_early.long(), too_late | too_early
