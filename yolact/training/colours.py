"""The colour steps of the "ssd" augmentation: drawn for each image, applied to a batch where the network runs.

The release changes colours first, at the image's own resolution, where a photo has more pixels than the network's
input. Here colours change after the one sampling of the pixels. Each step works pixel by pixel, so the order makes no
difference but where neighbouring pixels are blended.

Shapes: B images, S the network input's side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolact.training.random import coin, uniform

#: added to all values of the image
BRIGHTNESS = (-32.0, 32.0)
#: factor on all values of the image
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
#: shift of the hue in degrees
HUE = (-18.0, 18.0)


class ColourChange(NamedTuple):
    """What happens to the colours of one image, and where. The defaults change nothing."""

    brightness: float = 0.0
    """added to all values, 0–255"""
    contrast: float = 1.0
    """factor on all values"""
    saturation: float = 1.0
    """factor on the saturation"""
    hue: float = 0.0
    """turn of the hue in degrees"""
    x1: float = 0.0
    """the part of the network's input that shows the image, in pixels, ends excluded; the rest keeps its colour"""
    y1: float = 0.0
    x2: float = float("inf")
    y2: float = float("inf")

    @property
    def is_one(self) -> bool:
        """Whether anything changes."""
        return self[:4] != (0.0, 1.0, 1.0, 0.0)


def draw_colour_change() -> ColourChange:
    """Brightness, contrast, saturation and hue, each with probability ½; the channels keep their order.

    The release decides by a coin whether contrast comes before or after the other two. Here it comes first: a factor on
    all values changes neither saturation nor hue, so that both orders give the same image.
    """
    return ColourChange(
        brightness=uniform(*BRIGHTNESS) if coin() else 0.0,
        contrast=uniform(*CONTRAST) if coin() else 1.0,
        saturation=uniform(*SATURATION) if coin() else 1.0,
        hue=uniform(*HUE) if coin() else 0.0,
    )


def change_colours(images: Tensor, changes: Tensor) -> Tensor:
    """Change the colours of a batch.

    Values leave 0…255 between the steps, as in the release, and are clamped at the end.

    Args:
        images: (B, 3, S, S) uint8 or float, RGB, 0–255.
        changes: (B, 8) float, the fields of `ColourChange`, on the same device.

    Returns:
        (B, 3, S, S) float32, 0–255.
    """
    images = images.float()
    brightness, contrast, saturation, hue, *sides = (column.view(-1, 1, 1, 1) for column in changes.unbind(dim=1))
    values = (images + brightness) * contrast
    red, green, blue = values.split(1, dim=1)
    largest, smallest = values.amax(dim=1, keepdim=True), values.amin(dim=1, keepdim=True)
    chroma = largest - smallest
    divisor = chroma.clamp(min=1e-6)
    # position on the hexagon of hues, 0…6: red at 0, green at 2, blue at 4
    sector = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    offsets = torch.arange(5, 0, -2, dtype=values.dtype, device=values.device).view(1, 3, 1, 1)
    place = (sector + hue / 60 + offsets).remainder(6)
    values = largest - chroma * saturation * torch.minimum(place, 4 - place).clamp(0, 1)
    return torch.where(_inside(sides, images.shape[2:]), values.clamp(0, 255), images)


def _inside(sides: list[Tensor], size: torch.Size) -> Tensor:
    """(B, 1, S, S) bool: which pixels lie between x1, y1, x2, y2, each (B, 1, 1, 1)."""
    rows = torch.arange(size[0], device=sides[0].device)[:, None]
    columns = torch.arange(size[1], device=sides[0].device)
    x1, y1, x2, y2 = sides
    return (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
