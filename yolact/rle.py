"""Soft masks → COCO run-length encoding at the image's size, without ever making a full-size mask.

Upsampling is bilinear, so along an output column a mask changes linearly between two prototype rows and crosses 0.5 at
most once there. It is enough to interpolate the columns at the prototype rows and to place each crossing directly:
work in proportion to W · h instead of W · H, inside the detection's region only.

The result is the same, bit for bit, as `torch.nn.functional.interpolate` of the masks in float64 and `> THRESHOLD`:
the weights are that function's own (taken from interpolating the identity), and a crossing is settled by computing the
pixels on both sides of it. What may differ is rounding (order, fused multiply-adds), far below the step of float32
masks. It would show where a value is exactly 0.5, as a sigmoid is where all prototypes are 0; THRESHOLD therefore lies
a hair above.

Shapes: N masks of h × w, H × W the image. Runs go down the columns, as in COCO; a "flip" is a pixel where a mask
changes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

#: "above 0.5" for values computed in float64 from float32 masks, whose step at 0.5 is 6e-8
THRESHOLD = 0.5 + 1e-9

#: COCO's `{"size": [height, width], "counts": bytes}`
Rle = dict[str, Any]


def encode_soft_masks(masks: np.ndarray, regions: np.ndarray, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """Upsample to H × W, threshold at > 0.5 and encode.

    Args:
        masks: (N, h, w) float32 in 0..1.
        regions: (N, 4) int x1, y1, x2, y2, ends excluded: what lies outside counts as 0.
        height, width: H and W.

    Returns:
        N RLE dicts, and (N,) int64 areas in pixels. A mask without pixels is one run of zeros.
    """
    xs, ys = _axis(masks.shape[2], width), _axis(masks.shape[1], height)
    owners, positions = [], []
    for mask, region in zip(masks, regions.tolist(), strict=True):
        flips = _flips(mask, region, xs, ys)
        owners.append(len(flips))
        positions.append(flips)
    owner = np.repeat(np.arange(len(owners)), owners)
    flat = np.concatenate(positions) if positions else np.zeros(0, np.int64)
    return _encode(owner, flat, len(masks), height, width)


def decode(rle: Rle) -> np.ndarray:
    """(H, W) bool mask of an RLE dict with compressed counts."""
    height, width = rle["size"]
    runs = unpack_counts(rle["counts"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def pack_counts(counts: np.ndarray, first: np.ndarray) -> tuple[bytes, np.ndarray]:
    """COCO's compressed form of run lengths.

    From its fourth number on, each is written as the difference to the one two before; every number in groups of five
    bits, low ones first, as characters from "0" on, the sixth bit saying that more follow.

    Args:
        counts: (R,) run lengths of all masks, one after the other.
        first: (R,) the index in `counts` at which each run's mask begins.

    Returns:
        All characters, and (R,) how many each run took.
    """
    index = np.arange(len(counts))
    differs = index - first > 2
    values = counts.astype(np.int64)
    values[differs] -= counts[index[differs] - 2]
    groups = np.arange(7)
    digits = (values[:, None] >> (5 * groups)) & 0x1F
    # a group is the last when what is left is its own sign: bits above are all 0 after a low, all 1 after a high one
    rest = values[:, None] >> (5 * groups + 4)
    lengths = ((rest != 0) & (rest != -1)).sum(axis=1) + 1
    more = groups < lengths[:, None] - 1
    characters = (digits + 0x20 * more + 48).astype(np.uint8)
    return characters[groups < lengths[:, None]].tobytes(), lengths


def unpack_counts(packed: bytes) -> np.ndarray:
    """Run lengths (R,) int64 of one mask, zeros first, from COCO's compressed form (not empty)."""
    characters = np.frombuffer(packed, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(characters < 0x20)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(characters)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((characters & 0x1F) << (5 * place), first)
    values -= np.where(characters[last] & 0x10, 1 << (5 * (last - first + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


class _Axis(NamedTuple):
    """Bilinear resizing along an axis: output pixel p is low[p] · source[lower[p]] + high[p] · source[lower[p] + 1]."""

    lower: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    """(source + 1,): the first output pixel at or after each source element; last, the number of output pixels."""


@lru_cache(maxsize=64)
def _axis(source: int, target: int) -> _Axis:
    identity = torch.eye(source, dtype=torch.float64)[None, None]
    weights = F.interpolate(identity, (target, source), mode="bilinear", align_corners=False)[0, 0].numpy()
    lower = (weights > 0).argmax(axis=1)
    pixels = np.arange(target)
    low = weights[pixels, lower]
    high = np.where(lower < source - 1, weights[pixels, np.minimum(lower + 1, source - 1)], 0.0)
    first = np.searchsorted(lower, np.arange(source + 1))
    return _Axis(lower, low, high, first)


def _flips(mask: np.ndarray, region: list[int], xs: _Axis, ys: _Axis) -> np.ndarray:
    """Rising positions (column · H + row) at which a mask changes state; equal neighbours cancel each other."""
    x1, y1, x2, y2 = region
    if x1 >= x2 or y1 >= y2:
        return np.zeros(0, np.int64)
    height = len(ys.lower)
    # the region turned on its side, with a column of zeros before and after
    source = np.zeros((x2 - x1 + 2, y2 - y1), np.float64)
    source[1:-1] = mask[y1:y2, x1:x2].T
    start, end = xs.first[max(x1 - 1, 0)], xs.first[x2]
    left = xs.lower[start:end] - (x1 - 1)
    right = np.minimum(left + 1, len(source) - 1)
    columns = source[left] * xs.low[start:end, None] + source[right] * xs.high[start:end, None]
    state = np.zeros((len(columns), y2 - y1 + 2), bool)
    np.greater(columns, THRESHOLD, out=state[:, 1:-1])
    column, edge = np.nonzero(state[:, 1:] != state[:, :-1])
    before = np.where(edge > 0, columns[column, edge - 1], 0.0)
    after = np.where(edge < y2 - y1, columns[column, np.minimum(edge, y2 - y1 - 1)], 0.0)
    rows = _crossings(edge + (y1 - 1), before, after, state[column, edge + 1], ys)
    return (column + start) * height + rows


def _crossings(lower: np.ndarray, before: np.ndarray, after: np.ndarray, state: np.ndarray, ys: _Axis) -> np.ndarray:
    """The first output row that has the new state, between source rows `lower` and `lower + 1`.

    `before` and `after` are the values of these two rows (row −1 lies above the image, row h below it). Where no output
    row between them has the new state yet, it is the first row after.
    """
    source, target = len(ys.first) - 1, len(ys.lower)
    inside = (lower >= 0) & (lower < source - 1)
    earliest = np.where(inside, ys.first[lower], np.where(lower < 0, 0, target))
    latest = np.where(inside, ys.first[lower + 1], earliest)
    share = (THRESHOLD - before) / (after - before)
    rows = np.ceil((lower + share + 0.5) * (target / source) - 0.5).astype(np.int64)
    rows = np.clip(rows, earliest, latest)

    def changed(row: np.ndarray) -> np.ndarray:
        row = np.minimum(row, target - 1)
        return (ys.low[row] * before + ys.high[row] * after > THRESHOLD) == state

    while (too_late := (rows > earliest) & changed(rows - 1)).any():
        rows -= too_late
    while (too_early := (rows < latest) & ~changed(rows)).any():
        rows += too_early
    return rows


def _encode(owner: np.ndarray, flips: np.ndarray, count: int, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """Flips of masks 0 … count − 1 (rising within each) → RLE dicts and areas."""
    pixels = height * width
    key = owner * (pixels + 1) + flips
    # an even number of flips at one pixel is none: a run that ends one column and goes on at the top of the next
    change = np.flatnonzero(np.diff(key, prepend=-1))
    odd = np.diff(np.append(change, len(key))) % 2 == 1
    owner, flips = owner[change[odd]], flips[change[odd]]

    per_mask = np.bincount(owner, minlength=count)
    ends = np.cumsum(per_mask + 2)
    starts = ends - per_mask - 2
    edges = np.empty(len(flips) + 2 * count, np.int64)
    is_flip = np.ones(len(edges), bool)
    is_flip[starts] = is_flip[ends - 1] = False
    edges[starts], edges[ends - 1], edges[is_flip] = 0, pixels, flips

    runs = np.diff(edges)
    is_run = np.ones(len(runs), bool)
    is_run[ends[:-1] - 1] = False
    is_run[ends - 2] &= (runs[ends - 2] > 0) | (per_mask == 0)
    runs_before = np.concatenate([[0], np.cumsum(is_run)])
    mask_first, mask_end = runs_before[starts], runs_before[ends - 1]
    runs = runs[is_run]
    characters, lengths = pack_counts(runs, np.repeat(mask_first, mask_end - mask_first))
    byte = np.concatenate([[0], np.cumsum(lengths)])

    areas = np.array([runs[a + 1 : b : 2].sum() for a, b in zip(mask_first, mask_end, strict=True)], np.int64)
    size = [height, width]
    rles = [
        {"size": list(size), "counts": characters[byte[a] : byte[b]]} for a, b in zip(mask_first, mask_end, strict=True)
    ]
    return rles, areas
