"""Prepared images → network input: of one image, for CPUs, or of a whole batch at once, for GPUs.

Apart from `yolact.images.prepare`, because this imports torch: processes that only decode and prepare do not need it.

Shapes: B images of the batch, S the network input's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from yolact.config import YolactConfig
from yolact.images.prepare import PreparedImage, kept_positions


def network_input(image: PreparedImage, config: YolactConfig, device: torch.device | str = "cpu") -> Tensor:
    """Resize and normalise on a device.

    Args:
        image: reduced by `prepare_image`, or with all its pixels; the result has the same bits.

    Returns:
        (3, S, S) float32: (RGB − mean) / std.

    Raises:
        ValueError: when the image was prepared for another input size.
    """
    size = config.input_size
    # torch has no read-only tensors and warns of read-only arrays: PIL and Arrow give such
    writeable = image.pixels if image.pixels.flags.writeable else image.pixels.copy()
    pixels = torch.from_numpy(writeable).to(device)
    rows = _lerp(pixels, 0, *kept_positions(pixels.shape[0], image.height, size))
    resized = _lerp(rows, 1, *kept_positions(pixels.shape[1], image.width, size))
    normalised = (resized - resized.new_tensor(config.mean)) / resized.new_tensor(config.std)
    return normalised.permute(2, 0, 1).contiguous()


def _lerp(x: Tensor, dim: int, lower: np.ndarray, upper: np.ndarray, weight: np.ndarray) -> Tensor:
    """Interpolate (·, ·, 3) along `dim` between two positions per output element."""
    low = x.index_select(dim, torch.from_numpy(lower).to(x.device)).float()
    high = x.index_select(dim, torch.from_numpy(upper).to(x.device)).float()
    shape = [1, 1, 1]
    shape[dim] = len(weight)
    return low + (high - low) * torch.from_numpy(weight).to(x.device).view(shape)


def batch_input(images: Sequence[PreparedImage], config: YolactConfig, device: torch.device, batch_size: int) -> Tensor:
    """As `network_input` for each image, to the bit; blank images fill up the batch. One copy takes all pixels there.

    Returns:
        (batch_size, 3, S, S) float32 on the device. On a GPU the copy may still be under way, in the current stream.

    Raises:
        ValueError: when an image was prepared for another input size.
    """
    size = config.input_size
    inputs = torch.zeros((batch_size, 3, size, size), device=device)
    if not images:
        return inputs
    # of each image: rows above and below, columns left and right, as places in the list of all pixels
    places = np.empty((len(images), 4, size), np.int32)
    weights = np.empty((len(images), 2, size), np.float32)
    begin = 0
    for image, place, weight in zip(images, places, weights, strict=True):
        height, width = image.pixels.shape[:2]
        first, second, weight[0] = kept_positions(height, image.height, size)
        place[0], place[1] = begin + first * width, begin + second * width
        place[2], place[3], weight[1] = kept_positions(width, image.width, size)
        begin += height * width
    packed = _to_device([places, weights, *(image.pixels for image in images)], device)
    on_device = packed[: places.nbytes].view(torch.int32).view(places.shape)
    row_above, row_below, left, right = on_device.unbind(dim=1)
    shares = packed[places.nbytes : places.nbytes + weights.nbytes].view(torch.float32).view(weights.shape)
    down, across = shares[:, 0, :, None, None], shares[:, 1, None, :, None]
    pixels = packed[places.nbytes + weights.nbytes :].view(-1, 3)

    def column(at: Tensor) -> Tensor:
        upper, lower = (pixels[row[:, :, None] + at[:, None, :]].float() for row in (row_above, row_below))
        return upper + (lower - upper) * down

    from_left = column(left)
    resized = from_left + (column(right) - from_left) * across
    mean, std = _normalisation(config.mean, config.std, device)
    inputs[: len(images)] = ((resized - mean) / std).permute(0, 3, 1, 2)
    return inputs


def _to_device(parts: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """The bytes of all parts, one after the other, by one copy; on a GPU from page-locked memory, without waiting."""
    on_gpu = device.type == "cuda"
    # PyTorch keeps page-locked memory for later use, and gives it out again only when the copy is done
    staging = torch.empty(sum(part.nbytes for part in parts), dtype=torch.uint8, pin_memory=on_gpu)
    target, begin = staging.numpy(), 0
    for part in parts:
        target[begin : begin + part.nbytes] = part.reshape(-1).view(np.uint8)
        begin += part.nbytes
    return staging.to(device, non_blocking=on_gpu)


@lru_cache(maxsize=16)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)
