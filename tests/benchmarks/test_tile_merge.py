"""The measurement of the merge draws what it says, and finds nothing lost or doubled."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from benchmarks.tile_merge import TileMergeConfig, draw, measure
from yolact.geometry.mask_runs import encode_runs
from yolact.images.tiles import Window


def test_discs_do_not_touch_and_windows_show_their_part():
    discs = draw(25, seed=1)
    whole = Window(0, 0, discs.side, discs.side)
    masks = encode_runs(discs.within(whole), discs.side)[0]
    dense = coco_mask.decode(masks)
    assert dense.shape == (discs.side, discs.side, 25)
    assert dense.sum(axis=2).max() == 1
    window = Window(70, 40, 200, 190)
    shown = [mask for mask in np.moveaxis(dense[40:190, 70:200], 2, 0) if mask.any()]
    expected = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in shown]
    assert [mask["counts"] for mask in encode_runs(discs.within(window), window.width)[0]] == expected


@pytest.mark.compute
def test_nothing_is_lost_or_doubled():
    lines = measure(TileMergeConfig(instances=900, tile=300, rounds=1))
    assert "900 instances, 0 lost, 0 doubled or wrong" in lines
