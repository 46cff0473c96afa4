"""Run-length encoding gives what pycocotools gives, and what the plain path over full-size masks gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from support.soft_masks import encode_soft_masks

from yolact.geometry.masks import assemble_masks, crop_masks, crop_regions, whole_regions
from yolact.geometry.outlines import THRESHOLD
from yolact.geometry.rle import decode, pack_counts, unpack_counts

seeds = st.integers(0, 2**32 - 1)


def plain_path(masks: torch.Tensor, regions: torch.Tensor, height: int, width: int) -> np.ndarray:
    """(N, height, width) uint8: crop, upsample the full size, threshold."""
    cropped = crop_masks(masks, regions).double()
    full = F.interpolate(cropped[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(full > 0.5, full > THRESHOLD) or (full - 0.5).abs().min() < 2e-9
    return (full > THRESHOLD).to(torch.uint8).numpy()


def random_masks(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Smooth, noisy, saturated and exactly undecided values, as sigmoids of unbounded prototypes give."""
    noise = torch.tensor(rng.standard_normal((count, 1, height, width)), dtype=torch.float32)
    coarse = F.interpolate(noise[..., ::3, ::3], (height, width), mode="bilinear")
    masks = torch.sigmoid(rng.choice([1.0, 8.0, 100.0]) * (coarse + rng.choice([0.0, 0.3]) * noise))[:, 0]
    undecided = torch.tensor(rng.random((count, height, width)) < 0.2)
    return torch.where(undecided, 0.5, masks) if rng.random() < 0.5 else masks


def random_regions(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    corners = torch.tensor(rng.uniform(-0.3, 1.3, (count, 4)), dtype=torch.float32)
    return crop_regions(corners, height, width)


@pytest.mark.compute
@settings(deadline=None, max_examples=300)
@given(seeds, st.integers(1, 24), st.integers(1, 24), st.integers(1, 70), st.integers(1, 70))
@example(0, 8, 8, 12, 12)
@example(1, 2, 2, 3, 3)
def test_masks_inside_the_box_are_those_of_the_full_image(seed, h, w, height, width):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 5))
    masks = random_masks(rng, count, h, w) if count else torch.zeros(0, h, w)
    regions = random_regions(rng, count, h, w) if rng.random() < 0.8 else whole_regions(count, h, w)
    rles, areas = encode_soft_masks(masks.numpy(), regions.numpy(), height, width)
    full = plain_path(masks, regions, height, width)
    assert [rle["size"] for rle in rles] == [[height, width]] * count
    assert [rle["counts"] for rle in rles] == [coco_mask.encode(np.asfortranarray(m))["counts"] for m in full]
    assert areas.tolist() == full.sum(axis=(1, 2)).tolist()


@pytest.mark.compute
@pytest.mark.parametrize(("height", "width"), [(480, 640), (1201, 37), (97, 3000), (60, 50)])
def test_prototypes_of_real_size(height, width):
    rng = np.random.default_rng(height)
    prototypes = F.interpolate(torch.tensor(rng.random((1, 32, 12, 12))), (138, 138), mode="bilinear")[0].float()
    coefficients = torch.tensor(rng.uniform(-1, 1, (12, 32)), dtype=torch.float32)
    masks = assemble_masks(prototypes, coefficients)
    regions = random_regions(rng, 12, 138, 138)
    rles, _ = encode_soft_masks(masks.numpy(), regions.numpy(), height, width)
    full = plain_path(masks, regions, height, width)
    assert full.any()
    assert [rle["counts"] for rle in rles] == [coco_mask.encode(np.asfortranarray(m))["counts"] for m in full]


@pytest.mark.compute
@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.02, 0.5, 0.97, 1.0]))
def test_round_trip_and_pycocotools(seed, height, width, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(decode(rle), mask)
    runs = unpack_counts(rle["counts"])
    assert pack_counts(runs, np.zeros(len(runs), int))[0] == rle["counts"]
    if height == width == 1:
        return
    own, areas = encode_soft_masks(mask[None].astype(np.float32), np.array([[0, 0, width, height]]), height, width)
    assert own[0]["counts"] == rle["counts"]
    assert areas[0] == mask.sum()


@pytest.mark.compute
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31), min_size=1, max_size=9), min_size=1, max_size=5))
def test_packing_is_independent_of_neighbours(masks):
    first = np.cumsum([0] + [len(runs) for runs in masks[:-1]])
    packed, lengths = pack_counts(np.concatenate(masks), np.repeat(first, [len(runs) for runs in masks]))
    ends = np.cumsum(lengths)[first + [len(runs) - 1 for runs in masks]]
    for runs, start, end in zip(masks, [0, *ends[:-1]], ends, strict=True):
        assert packed[start:end] == pack_counts(np.array(runs), np.zeros(len(runs), int))[0]
        assert unpack_counts(packed[start:end]).tolist() == runs


def test_a_mask_over_everything_and_one_over_nothing():
    masks = np.stack([np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)])
    rles, areas = encode_soft_masks(masks, np.array([[0, 0, 4, 4]] * 2), 10, 20)
    assert areas.tolist() == [200, 0]
    assert decode(rles[0]).all()
    assert not decode(rles[1]).any()
    assert unpack_counts(rles[0]["counts"]).tolist() == [0, 200]
    assert unpack_counts(rles[1]["counts"]).tolist() == [200]
