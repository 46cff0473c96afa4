"""Mask outlines → COCO run lengths in tensors, for GPUs: as `encode_flips` of `yolact.geometry.rle`, to the byte.

No step waits for a number: tensors have the size of the worst case, and their ends are not used.

Shapes: F flips, N masks, E edges of runs at most: each flip, and two for each mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: groups of five bits that the largest number of a run needs: masks have below 2^33 pixels
_GROUPS = 7


class PackedRuns(NamedTuple):
    """The compressed form of N masks."""

    characters: Tensor
    """uint8: those of the first mask, of the second one, …, then unused places."""
    lengths: Tensor
    """(N,) int64: how many characters each mask has."""
    areas: Tensor
    """(N,) int64 pixels."""


def pack_flips(keys: Tensor, pixels: Tensor, stride: int) -> PackedRuns:
    """Flips of masks → their compressed run lengths.

    Args:
        keys: (F,) rising mask · stride + pixel, int64.
        pixels: (N,) int64, H · W of each mask.
        stride: above every number of pixels.
    """
    kept = _odd(keys)
    owner = keys // stride
    per_mask = torch.zeros_like(pixels).scatter_add(0, owner, kept.long())
    ends = (per_mask + 2).cumsum(0)
    starts = ends - per_mask - 2
    # an edge at 0, the flips, and an edge at the last pixel; what is not kept goes to the place after all edges
    most = len(keys) + 2 * len(pixels)
    edges = keys.new_zeros(most + 1)
    edges.scatter_(0, torch.where(kept, kept.cumsum(0) + 2 * owner, most), keys - owner * stride)
    edges.scatter_(0, ends - 1, pixels)
    runs = edges[1:] - edges[:-1]

    mask_of = keys.new_zeros(most).scatter(0, starts, 1).cumsum(0) - 1
    number = torch.arange(most, device=keys.device) - starts[mask_of]
    # from the last edge of a mask begins no run, and a last run without pixels is left out
    last = (per_mask + 1)[mask_of]
    is_run = (number < last) & ((number < last - 1) | (runs > 0) | (last == 1))
    values = torch.where(number > 2, runs - runs.roll(2), runs)

    rest = (values ^ (values >> 63)) >> 4
    group = torch.arange(_GROUPS, device=keys.device)
    lengths = is_run * (1 + ((rest[:, None] >> 5 * group[: _GROUPS - 1]) != 0).sum(dim=1))
    character = ((values[:, None] >> 5 * group) & 0x1F) + 0x20 * (group < lengths[:, None] - 1) + 48
    place = (lengths.cumsum(0) - lengths)[:, None] + group
    characters = torch.zeros(_GROUPS * most + 1, dtype=torch.uint8, device=keys.device)
    characters.scatter_(
        0,
        torch.where(group < lengths[:, None], place, _GROUPS * most).flatten(),
        character.to(torch.uint8).flatten(),
    )
    filled = is_run & (number % 2 == 1)
    return PackedRuns(
        characters[:-1],
        torch.zeros_like(pixels).scatter_add(0, mask_of, lengths),
        torch.zeros_like(pixels).scatter_add(0, mask_of, runs * filled),
    )


def _odd(keys: Tensor) -> Tensor:
    """(F,) bool: the last of equal keys if there is an odd number of them. An even number cancels itself."""
    index = torch.arange(len(keys), device=keys.device)
    new = keys.diff(prepend=keys.new_full((1,), -1)) != 0
    first = torch.where(new, index, 0).cummax(0).values if len(keys) else index
    last = new.roll(-1)
    last[-1:] = True
    return last & ((index - first) % 2 == 0)
