"""Large images are cut into tiles that cover them exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolact.images.prepare import prepare_image
from yolact.images.tile_config import TileConfig
from yolact.images.tiles import count_inputs, cut, prepare_for_tiles, tile_windows

sides = st.integers(1, 400)


@given(sides, sides, st.integers(32, 120), st.sampled_from([0.0, 0.1, 0.2, 0.33, 0.5]))
def test_tiles_cover_every_pixel_and_none_outside(height, width, size, overlap):
    tile = TileConfig(size, overlap)
    windows = tile_windows(height, width, tile)
    covered = np.zeros((height, width), int)
    for window in windows:
        assert 0 <= window.left < window.right <= width
        assert 0 <= window.top < window.bottom <= height
        assert (window.height, window.width) == (min(size, height), min(size, width))
        covered[window.top : window.bottom, window.left : window.right] += 1
    assert covered.min() == 1 or overlap > 0
    assert covered.min() >= 1
    assert len(set(windows)) == len(windows)
    assert count_inputs(height, width, tile) == (len(windows) + 1 if tile.cuts(height, width) else 1)


def test_the_last_tile_is_shifted_inwards():
    windows = tile_windows(100, 250, TileConfig(100, 0.2))
    assert [(w.left, w.right) for w in windows] == [(0, 100), (80, 180), (150, 250)]
    assert {(w.top, w.bottom) for w in windows} == {(0, 100)}


def test_an_image_no_larger_than_a_tile_is_prepared_as_without_tiles():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    tile = TileConfig(300)
    prepared = prepare_for_tiles(pixels, 64, tile)
    assert np.array_equal(prepared.pixels, prepare_image(pixels, 64).pixels)
    assert list(cut(prepared, 64, tile)) == [prepared]


@pytest.mark.parametrize("whole_image", [True, False])
def test_a_tile_is_what_that_part_of_the_image_is_on_its_own(whole_image):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    tile = TileConfig(150, 0.2, whole_image)
    prepared = prepare_for_tiles(pixels, 64, tile)
    parts = list(cut(prepared, 64, tile))
    windows = tile_windows(300, 200, tile)
    assert len(parts) == len(windows) + whole_image
    for part, window in zip(parts, windows, strict=False):
        alone = prepare_image(pixels[window.top : window.bottom, window.left : window.right], 64)
        assert np.array_equal(part.pixels, alone.pixels)
        assert (part.height, part.width) == (window.height, window.width)
    if whole_image:
        assert np.array_equal(parts[-1].pixels, prepare_image(pixels, 64).pixels)


def test_an_image_prepared_without_its_tiles_is_refused():
    pixels = np.zeros((300, 200, 3), np.uint8)
    with pytest.raises(ValueError, match="prepared without its tiles"):
        list(cut(prepare_image(pixels, 64), 64, TileConfig(100)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 31}, "size of a tile must be at least 32"),
        ({"size": 100, "overlap": 0.6}, "overlap of tiles must lie in 0..0.5"),
        ({"size": 100, "overlap": -0.1}, "overlap of tiles must lie in 0..0.5"),
        ({"size": 100, "max_detections": 0}, "max_detections of a tiled image must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TileConfig(**values)
