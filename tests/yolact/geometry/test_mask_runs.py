"""Runs of pixels give what full-size masks give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from yolact.geometry.mask_runs import MaskRuns, concatenate, encode_runs, find_overlaps, place_masks, unite

seeds = st.integers(0, 2**32 - 1)


def random_case(seed: int) -> tuple[MaskRuns, np.ndarray]:
    """Masks of parts of an image, placed in it, and the same masks as (N, H, W) bool."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 30, 2)
    count = int(rng.integers(0, 7))
    dense = np.zeros((count, height, width), bool)
    rles, lefts, tops = [], np.zeros(count, np.int64), np.zeros(count, np.int64)
    for index in range(count):
        tops[index], lefts[index] = rng.integers(0, height), rng.integers(0, width)
        h = int(rng.integers(1, height - tops[index] + 1))
        w = int(rng.integers(1, width - lefts[index] + 1))
        mask = rng.random((h, w)) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        dense[index, tops[index] : tops[index] + h, lefts[index] : lefts[index] + w] = mask
        rles.append(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return place_masks(rles, lefts, tops, int(height)), dense


def encoded(dense: np.ndarray) -> list[bytes]:
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in dense]


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_masks_of_parts_become_those_of_the_image(seed):
    runs, dense = random_case(seed)
    rles, areas = encode_runs(runs, dense.shape[2])
    assert [rle["counts"] for rle in rles] == encoded(dense)
    assert all(rle["size"] == list(dense.shape[1:]) for rle in rles)
    assert areas.tolist() == runs.areas.tolist() == dense.sum(axis=(1, 2)).tolist()
    for box, mask in zip(runs.boxes(), dense, strict=True):
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box.tolist() == expected


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_overlaps_are_those_of_full_masks_of_the_same_group(seed):
    runs, dense = random_case(seed)
    groups = np.random.default_rng(seed).integers(0, 2, len(dense))
    found = find_overlaps(runs, groups)
    expected = [
        (one, other, pixels)
        for one in range(len(dense))
        for other in range(one + 1, len(dense))
        if groups[one] == groups[other] and (pixels := int((dense[one] & dense[other]).sum()))
    ]
    assert list(zip(*(values.tolist() for values in (found.one, found.other, found.pixels)), strict=True)) == expected


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_overlaps_among_some_masks_are_those_of_these_masks(seed):
    runs, dense = random_case(seed)
    kept = np.random.default_rng(seed).random(len(dense)) < 0.6
    groups = np.zeros(len(dense), np.int64)
    some = find_overlaps(runs.take(np.flatnonzero(kept)), groups[kept])
    among = find_overlaps(runs, groups).among(kept)
    for name in ("one", "other", "pixels"):
        assert getattr(among, name).tolist() == getattr(some, name).tolist()


@pytest.mark.compute
def test_masks_that_are_placed_and_encoded_in_steps_are_the_same(monkeypatch):
    cases = [random_case(seed) for seed in range(20)]
    monkeypatch.setattr("yolact.geometry.mask_runs._MASKS_AT_ONCE", 2)
    for (runs, dense), (again, _) in zip(cases, map(random_case, range(20)), strict=True):
        assert again.start.tolist() == runs.start.tolist()
        rles, areas = encode_runs(again, dense.shape[2])
        assert [rle["counts"] for rle in rles] == encoded(dense)
        assert areas.tolist() == runs.areas.tolist()


@pytest.mark.compute
def test_overlaps_that_are_found_in_steps_are_the_same(monkeypatch):
    cases = [random_case(seed)[0] for seed in range(20)]
    at_once = [find_overlaps(runs, np.zeros(len(runs), np.int64)) for runs in cases]
    monkeypatch.setattr("yolact.geometry.mask_runs._PAIRS_AT_ONCE", 2)
    in_steps = [find_overlaps(runs, np.zeros(len(runs), np.int64)) for runs in cases]
    assert max(len(found.one) for found in at_once) > 3
    for few, many in zip(in_steps, at_once, strict=True):
        for name in ("one", "other", "pixels"):
            assert getattr(few, name).tolist() == getattr(many, name).tolist()


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_unions_are_those_of_full_masks(seed):
    runs, dense = random_case(seed)
    groups = np.random.default_rng(seed).integers(-1, 3, len(dense))
    united = unite(runs, groups, 3)
    expected = np.array([dense[groups == group].any(axis=0) for group in range(3)])
    assert [rle["counts"] for rle in encode_runs(united, dense.shape[2])[0]] == encoded(expected)


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_areas_within_windows_are_those_of_cropped_masks(seed):
    runs, dense = random_case(seed)
    rng = np.random.default_rng(seed)
    if not len(dense):
        return
    index = rng.integers(0, len(dense), 5)
    corners = rng.integers(0, 30, (5, 2))
    windows = np.concatenate([corners, corners + rng.integers(0, 20, (5, 2))], axis=1)
    expected = [
        dense[i, top:bottom, left:right].sum() for i, (left, top, right, bottom) in zip(index, windows, strict=True)
    ]
    assert runs.areas_within(index, windows).tolist() == expected


@pytest.mark.compute
@settings(deadline=None)
@given(seeds)
def test_taking_and_joining_sets_of_masks(seed):
    runs, dense = random_case(seed)
    order = np.random.default_rng(seed).permutation(len(dense))
    both = concatenate([runs.take(order), runs], runs.height)
    expected = [*encoded(dense[order]), *encoded(dense)]
    assert [rle["counts"] for rle in encode_runs(both, dense.shape[2])[0]] == expected
