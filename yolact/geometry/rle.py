"""Soft masks → COCO run-length encoding at the image's size, without ever making a full-size mask.

Runs go down the columns, as in COCO. Shapes: N masks of h × w, H × W the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolact.geometry.outlines import flips_of_logits, flips_of_masks

#: COCO's `{"size": [height, width], "counts": bytes}`
Rle = dict[str, Any]


def encode_soft_masks(
    masks: Tensor | np.ndarray, regions: Tensor | np.ndarray, height: int, width: int
) -> tuple[list[Rle], np.ndarray]:
    """Upsample to H × W, threshold at > 0.5 and encode.

    Args:
        masks: (N, h, w) float32 in 0..1.
        regions: (N, 4) int x1, y1, x2, y2, ends excluded: what lies outside counts as 0.
        height, width: H and W.

    Returns:
        N RLE dicts, and (N,) int64 areas in pixels. A mask without pixels is one run of zeros.
    """
    masks = torch.as_tensor(masks)
    flips = flips_of_masks(masks, torch.as_tensor(regions), height, width)
    return _encode(flips, len(masks), height, width)


def encode_mask_logits(logits: Tensor, regions: Tensor, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """`encode_soft_masks` of the logits' sigmoids, which are taken along the outlines only.

    All masks at once, on their device: only the places where they change leave it.
    """
    return _encode(flips_of_logits(logits, regions, height, width), len(logits), height, width)


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
    # a group is the last when what is left is its own sign: bits above are all 0 after a low, all 1 after a high one
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


def _encode(keys: np.ndarray, count: int, height: int, width: int) -> tuple[list[Rle], np.ndarray]:
    """Flips (as `yolact.outlines` gives them) of masks 0 … count − 1 → RLE dicts and areas."""
    pixels = height * width
    # an even number of flips at one pixel is none: a run that ends one column and goes on at the top of the next
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
