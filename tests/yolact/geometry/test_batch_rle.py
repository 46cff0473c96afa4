"""Masks of several images to run lengths in tensors: the same bytes as image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolact.geometry import outlines
from yolact.geometry.batch_outlines import flips_of_batch, stride_of
from yolact.geometry.batch_rle import pack_flips
from yolact.geometry.outlines import sides_in_tensors
from yolact.geometry.rle import encode_mask_logits, unpack_counts

#: H, W: smaller and larger than the masks, thin, a single pixel
SIZES = [(60, 80), (1, 1), (7, 300), (400, 3), (33, 21), (138, 138)]


def regions_for(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Rectangles of all sizes, empty ones and the whole map among them."""
    corners = np.sort(rng.integers(0, [[width + 1], [height + 1]], (count, 2, 2)), axis=2)
    regions = torch.from_numpy(corners.transpose(0, 2, 1).reshape(count, 4))
    if count > 1:
        regions[0] = torch.tensor([0, 0, width, height])
    return regions


def logits_for(rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> torch.Tensor:
    if kind == "noise":
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    if kind == "halves":  # a sigmoid of exactly one half is nowhere above it
        return torch.from_numpy(rng.choice([-2.0, 0.0, 2.0], shape).astype(np.float32))
    down, across = np.mgrid[: shape[1], : shape[2]]
    radius = rng.uniform(0, max(shape[1:]), (shape[0], 1, 1))
    return torch.from_numpy((radius - np.hypot(down - 9, across - 7)).astype(np.float32))


@pytest.mark.parametrize("kind", ["noise", "halves", "disc"])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_bytes_as_image_by_image(kind, seed):
    rng = np.random.default_rng(seed)
    height, width = (19, 17) if seed % 2 else (5, 24)
    counts = [int(rng.integers(0, 6)) for _ in SIZES]
    counts[seed] = 0
    image = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(counts))
    logits = logits_for(rng, kind, (len(image), height, width))
    regions = regions_for(rng, len(image), height, width)

    assert torch.equal(
        sides_in_tensors(logits, regions, -1e-6, 1e-6), outlines.sides_of_half(logits, regions, -1e-6, 1e-6)
    )
    flips = flips_of_batch(logits, regions, image, SIZES)
    assert flips.exact
    packed = pack_flips(flips.keys, torch.tensor(SIZES).prod(dim=1)[image], stride_of(SIZES))
    ends = packed.lengths.cumsum(0)
    found = [bytes(packed.characters[end - n : end].tolist()) for n, end in zip(packed.lengths, ends, strict=True)]

    expected, areas = [], []
    for index, (size, count) in enumerate(zip(SIZES, counts, strict=True)):
        own = image == index
        rles, own_areas = encode_mask_logits(logits[own], regions[own], *size)
        assert len(rles) == count
        expected += [rle["counts"] for rle in rles]
        areas += own_areas.tolist()
    assert found == expected
    assert packed.areas.tolist() == areas


def test_runs_of_a_very_large_mask():
    """Runs of up to 2^31 pixels: seven characters each."""
    pixels = 1 << 31
    flips = torch.tensor([5, pixels - 3, pixels - 2])
    packed = pack_flips(flips, torch.tensor([pixels]), pixels + 1)
    counts = unpack_counts(bytes(packed.characters[: int(packed.lengths[0])].tolist()))
    assert counts.tolist() == [5, pixels - 8, 1, 2]
    assert packed.areas.tolist() == [pixels - 8 + 2]


def test_no_masks():
    none = torch.zeros(0, dtype=torch.int64)
    flips = flips_of_batch(torch.zeros(0, 9, 9), torch.zeros(0, 4, dtype=torch.int64), none, SIZES)
    packed = pack_flips(flips.keys, none, stride_of(SIZES))
    assert (packed.lengths.tolist(), packed.areas.tolist()) == ([], [])
