"""Assembly and cropping of masks by hand-computed cases."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolact.geometry.masks import assemble_masks, crop_masks, crop_regions, whole_regions

coordinates = st.floats(-1.0, 2.0, width=32)


def test_assembly_is_the_sigmoid_of_the_product():
    prototypes = torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]])  # K = 2, 1 × 2
    masks = assemble_masks(prototypes, torch.tensor([[1.0, -1.0], [0.0, 0.0], [0.5, 0.5]]))
    expected = torch.sigmoid(torch.tensor([[[-2.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.5]]]))
    torch.testing.assert_close(masks, expected)
    assert assemble_masks(prototypes, torch.zeros(0, 2)).shape == (0, 1, 2)


@pytest.mark.parametrize(
    ("box", "region"),
    [
        ([0.25, 0.5, 0.75, 0.75], [1, 1, 7, 4]),  # 2..6 × 2..3 of 8 × 4, grown by one
        ([0.75, 0.75, 0.25, 0.5], [1, 1, 7, 4]),  # corners swapped
        ([0.2, 0.0, 0.3, 1.0], [1, 0, 4, 4]),  # 1.6 − 1 ≤ x < 2.4 + 1
        ([-1.0, -1.0, 3.0, 3.0], [0, 0, 8, 4]),
        ([2.0, 0.0, 3.0, 1.0], [8, 0, 8, 4]),  # outside: empty
    ],
)
def test_crop_regions_by_hand(box, region):
    assert crop_regions(torch.tensor([box]), height=4, width=8).tolist() == [region]


@settings(deadline=None)
@given(st.tuples(*[coordinates] * 4), st.integers(1, 20), st.integers(1, 20))
def test_cropping_is_the_releases_comparison(box, height, width):
    x1, x2 = sorted((box[0] * width, box[2] * width))
    y1, y2 = sorted((box[1] * height, box[3] * height))
    columns, rows = torch.arange(width), torch.arange(height)
    keep_x = (columns >= torch.tensor(x1 - 1)) & (columns < torch.tensor(x2 + 1))
    keep_y = (rows >= torch.tensor(y1 - 1)) & (rows < torch.tensor(y2 + 1))
    # float64 here, float32 there: leave boxes out whose edge falls on a pixel's
    if any(abs(edge - round(edge)) < 1e-4 for edge in (x1, x2, y1, y2)):
        return
    masks = torch.ones(1, height, width)
    cropped = crop_masks(masks, crop_regions(torch.tensor([box]), height, width))
    assert torch.equal(cropped[0] > 0, keep_y[:, None] & keep_x[None])


def test_whole_regions_keep_everything():
    masks = torch.rand(3, 5, 7)
    assert torch.equal(crop_masks(masks, whole_regions(3, 5, 7)), masks)
