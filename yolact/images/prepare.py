"""Pixels → network input: the one path for labelling, evaluation and the notebook.

Resizing samples bilinearly with half-pixel centres and no antialiasing (the release's way), so most rows of a large
image are never looked at: `prepare_image` drops those.

Shapes: H × W the image's own size, h × w what is kept of it, S the network input's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from yolact.config import YolactConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """The pixels of an image that its network input depends on; at most 2S × 2S."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB."""
    height: int
    """H of the image itself, in whose pixels detections are given."""
    width: int


def prepare_image(pixels: np.ndarray, input_size: int) -> PreparedImage:
    """Keep only the rows and columns that resizing to S × S looks at; the network input is the same to the bit.

    Args:
        pixels: (H, W, 3) uint8 RGB, not empty. A side of at most 2S is kept whole.
        input_size: S.

    Raises:
        ValueError: for another dtype or shape.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise ValueError(f"an image must be a NumPy array of uint8, not {kind}: convert it to RGB uint8 first")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3) and not be empty, not {pixels.shape}")
    height, width = pixels.shape[:2]
    if height > 2 * input_size:
        pixels = pixels[_touched(height, input_size)]
    if width > 2 * input_size:
        pixels = pixels[:, _touched(width, input_size)]
    return PreparedImage(np.ascontiguousarray(pixels), height, width)


def network_input(image: PreparedImage, config: YolactConfig, device: torch.device | str = "cpu") -> Tensor:
    """Resize and normalise on a device.

    Args:
        image: reduced by `prepare_image`, or with all its pixels; the result has the same bits.

    Returns:
        (3, S, S) float32: (RGB − mean) / std.

    Raises:
        ValueError: when the image was prepared for another input size.
    """
    import torch  # here: processes that only decode prepare pictures too, and need no network

    size = config.input_size
    pixels = torch.from_numpy(image.pixels).to(device)
    rows = _lerp(pixels, 0, *_kept_positions(pixels.shape[0], image.height, size))
    resized = _lerp(rows, 1, *_kept_positions(pixels.shape[1], image.width, size))
    normalised = (resized - resized.new_tensor(config.mean)) / resized.new_tensor(config.std)
    return normalised.permute(2, 0, 1).contiguous()


def _lerp(x: Tensor, dim: int, lower: np.ndarray, upper: np.ndarray, weight: np.ndarray) -> Tensor:
    """Interpolate (·, ·, 3) along `dim` between two positions per output element."""
    import torch

    low = x.index_select(dim, torch.from_numpy(lower).to(x.device)).float()
    high = x.index_select(dim, torch.from_numpy(upper).to(x.device)).float()
    shape = [1, 1, 1]
    shape[dim] = len(weight)
    return low + (high - low) * torch.from_numpy(weight).to(x.device).view(shape)


@lru_cache(maxsize=256)
def _positions(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per output element of one axis: the two source elements it lies between, and the float32 weight of the second."""
    # rounded to float32 where PyTorch's interpolate rounds: what the release's weights have always seen
    scale = np.float64(np.float32(source / target))
    centre = np.maximum((np.arange(target) + 0.5) * scale - 0.5, 0.0).astype(np.float32)
    lower = np.minimum(centre.astype(np.int64), source - 1)
    return lower, np.minimum(lower + 1, source - 1), centre - lower.astype(np.float32)


def _touched(source: int, target: int) -> np.ndarray:
    """The source elements that a side of more than 2S is sampled at: 2S, two for each output element, rising."""
    lower, upper, _ = _positions(source, target)
    return np.stack([lower, upper], axis=1).reshape(-1)


def _kept_positions(kept: int, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_positions`, counted among the `kept` elements: all of the source's, or those that `prepare_image` keeps."""
    lower, upper, weight = _positions(source, target)
    if kept == source:
        return lower, upper, weight
    if kept != 2 * target or source <= kept:
        raise ValueError(
            f"a side of {source} pixels was prepared to {kept}, which is not for input size {target}: "
            "prepare the image with this config"
        )
    return np.arange(0, 2 * target, 2), np.arange(1, 2 * target, 2), weight
