"""Soft masks → COCO run-length encoding at the image's size, without making a full-size mask.

Runs go down the columns, as in COCO. Shapes: N masks of h × w, H × W the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from yolact.geometry.outlines import flips_of_logits

#: COCO's `{"size": [height, width], "counts": bytes}`
Rle = dict[str, Any]


def encode_mask_logits(logits: Tensor, regions: Tensor, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """Take the sigmoid of masks, upsample them to H × W, threshold at > 0.5 and encode, all masks at once.

    Works on the masks' device; only the places where the masks change leave it.

    Args:
        logits: (N, h, w) float32 soft masks before their sigmoid.
        regions: (N, 4) int64 x1, y1, x2, y2, ends excluded: a mask is 0 outside of its region.
        height, width: H and W.

    Returns:
        N RLE dicts, and (N,) int64 areas in pixels. A mask without pixels is one run of zeros.
    """
    return encode_flips(flips_of_logits(logits, regions, height, width), len(logits), height, width)


def decode(rle: Rle) -> np.ndarray:
    """(H, W) bool mask of an RLE dict with compressed counts."""
    height, width = rle["size"]
    runs = unpack_counts(rle["counts"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def pack_counts(counts: np.ndarray, first: np.ndarray) -> tuple[bytes, np.ndarray]:
    """COCO's compressed form of run lengths.

    From the fourth number of a mask on, the difference to the number two places before is written instead. Each number
    is cut into groups of five bits, low bits first. A group is one character, counted from "0"; its sixth bit is set
    if more groups of the number follow.

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
    # A group is the last one of its number if all higher bits equal its own highest bit, the sign.
    rest = (values ^ (values >> 63)) >> 4
    lengths = np.ones(len(counts), np.int64)
    while (more := rest != 0).any():
        lengths += more
        rest >>= 5
    characters = np.empty(lengths.sum(), np.uint8)
    place, left = np.cumsum(lengths) - lengths, lengths
    while len(values):
        more = left > 1
        characters[place] = (values & 0x1F) + 0x20 * more + 48
        values, place, left = values[more] >> 5, place[more] + 1, left[more] - 1
    return characters.tobytes(), lengths


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


def encode_flips(keys: np.ndarray, count: int, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """The flips that `yolact.geometry.outlines` gives for masks 0 … count − 1 → RLE dicts and areas."""
    pixels = height * width
    # an even number of flips at one pixel cancels out: a run that ends a column goes on at the top of the next
    change = np.flatnonzero(np.diff(keys, prepend=-1))
    odd = np.diff(np.append(change, len(keys))) % 2 == 1
    owner, flips = np.divmod(keys[change[odd]], pixels + 1)

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
