"""Cuts large images into tiles, so that the network sees small objects at their own size.

Does not import torch: processes that only decode and prepare images use this too.

Shapes: H × W the image, T the side of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from yolact.images.prepare import PreparedImage, check_pixels, prepare_image
from yolact.images.tile_config import TileConfig


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels; the right and the bottom end are not part of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def tile_windows(height: int, width: int, tile: TileConfig) -> list[Window]:
    """The tiles of an image, row by row.

    Together they cover every pixel of the image and none outside of it. Each is T × T pixels. The last one of a row or
    column is shifted inwards, so it may overlap more than the others. Along a side that is shorter than T, tiles are as
    long as the image.
    """
    return [
        Window(left, top, min(left + tile.size, width), min(top + tile.size, height))
        for top in _starts(height, tile)
        for left in _starts(width, tile)
    ]


def _starts(length: int, tile: TileConfig) -> list[int]:
    if length <= tile.size:
        return [0]
    return [*range(0, length - tile.size, tile.stride), length - tile.size]


def prepare_for_tiles(pixels: np.ndarray, input_size: int, tile: TileConfig | None) -> PreparedImage:
    """What `prepare_image` gives; if the image will be cut, all its pixels, because its tiles need them.

    Args:
        pixels: (H, W, 3) uint8 RGB, not empty.
        input_size: side of the network's input.
        tile: how large images are cut; None if none is.

    Raises:
        ValueError: for another dtype or shape.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    if tile is None or not tile.cuts(height, width):
        return prepare_image(pixels, input_size)
    return PreparedImage(np.ascontiguousarray(pixels), height, width)


def cut(image: PreparedImage, input_size: int, tile: TileConfig) -> Iterator[PreparedImage]:
    """What the network gets of one image: the tiles in the order of `tile_windows`, then the whole image if asked for.

    An image that is not cut comes back as it is. Each tile is the same as that part of the image on its own.

    Raises:
        ValueError: for an image that is larger than a tile and was not prepared by `prepare_for_tiles`.
    """
    if not tile.cuts(image.height, image.width):
        yield image
        return
    if image.pixels.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"an image of {image.width} × {image.height} pixels was prepared without its tiles: "
            "prepare it with `prepare_for_tiles`, or with the predictor that gets it"
        )
    for window in tile_windows(image.height, image.width, tile):
        yield prepare_image(image.pixels[window.top : window.bottom, window.left : window.right], input_size)
    if tile.whole_image:
        yield prepare_image(image.pixels, input_size)


def count_inputs(height: int, width: int, tile: TileConfig | None) -> int:
    """How many inputs of the network an image of this size makes."""
    if tile is None or not tile.cuts(height, width):
        return 1
    return len(_starts(height, tile)) * len(_starts(width, tile)) + tile.whole_image
