"""Keeps of an image the pixels that the network reads: labelling, evaluation and the notebook all use this.

Resizing is bilinear with half-pixel centres and without antialiasing, as in the release. So most rows of a large image
are never read, and `prepare_image` drops them.

Shapes: H × W the image's own size, h × w what is kept of it, S the network input's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolact.geometry.resampling import bilinear_neighbours


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """The pixels of an image that its network input depends on; at most 2S × 2S."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB."""
    height: int
    """H of the image itself, in whose pixels detections are given."""
    width: int


def check_pixels(pixels: np.ndarray) -> None:
    """Raise `ValueError` for pixels that are not (H, W, 3) uint8, or empty."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise ValueError(f"an image must be a NumPy array of uint8, not {kind}: convert it to RGB uint8 first")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3) and not be empty, not {pixels.shape}")


def prepare_image(pixels: np.ndarray, input_size: int) -> PreparedImage:
    """Keep only the rows and columns that resizing to S × S looks at; the network input is the same to the bit.

    Args:
        pixels: (H, W, 3) uint8 RGB, not empty. A side of at most 2S is kept whole.
        input_size: S.

    Raises:
        ValueError: for another dtype or shape.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    if height > 2 * input_size:
        pixels = pixels[_touched(height, input_size)]
    if width > 2 * input_size:
        pixels = pixels[:, _touched(width, input_size)]
    return PreparedImage(np.ascontiguousarray(pixels), height, width)


def _touched(source: int, target: int) -> np.ndarray:
    """The source elements that a side of more than 2S is sampled at: 2S, two for each output element, rising."""
    lower, upper, _ = bilinear_neighbours(source, target)
    return np.stack([lower, upper], axis=1).reshape(-1)


def kept_positions(kept: int, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`bilinear_neighbours`, counted among the `kept` elements: all, or those that `prepare_image` keeps."""
    lower, upper, weight = bilinear_neighbours(source, target)
    if kept == source:
        return lower, upper, weight
    if kept != 2 * target or source <= kept:
        raise ValueError(
            f"a side of {source} pixels was prepared to {kept}, which is not for input size {target}: "
            "prepare the image with this config"
        )
    return np.arange(0, 2 * target, 2), np.arange(1, 2 * target, 2), weight
