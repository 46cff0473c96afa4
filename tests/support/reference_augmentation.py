"""The release's augmentation step by step, each at the image's own resolution: slow, and easy to compare with.

`yolact.training.augmentation` makes the same random choices in the same order, but samples once. So with the same seed
both must give the same sample, but for rounding.

A sample is a dict of `image` (3, H, W) uint8 RGB, `boxes` (G, 4) float xyxy in pixels of that image, `masks` (G, H, W)
bool or uint8, `labels` (G,) int64 and `is_crowd` (G,) bool.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolact.geometry.masks import resize_masks
from yolact.training.packed import ImageTruth
from yolact.training.windows import Window

Sample = dict[str, Tensor]

FILL_RGB = (123.68, 116.78, 103.94)
EMPTY_SIDE = 1e-3
BRIGHTNESS = (-32.0, 32.0)
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = (-18.0, 18.0)
ZOOM_OUT = (1.0, 4.0)
CROP_CHOICES = 6
CROP_TRIES = 50
CROP_SHARE = (0.3, 1.0)
CROP_ASPECT = (0.5, 2.0)


def reference_ssd(pixels: np.ndarray, truth: ImageTruth, input_size: int, mask_size: int) -> Sample:
    """A sample of an image: (3, S, S) uint8 with its colours changed, and what is left of the ground truth."""
    sample = {
        "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        "boxes": torch.from_numpy(truth.boxes),
        "labels": torch.from_numpy(truth.labels),
        "masks": torch.from_numpy(truth.whole_masks()),
        "is_crowd": torch.from_numpy(truth.is_crowd),
    }
    return resize_sample(_ssd(sample), input_size, mask_size)


def resize_sample(sample: Sample, input_size: int, mask_size: int) -> Sample:
    """Squash to the square network input."""
    _, height, width = sample["image"].shape
    pixels = F.interpolate(sample["image"][None].float(), (input_size, input_size), mode="bilinear")
    boxes = sample["boxes"] * torch.tensor([input_size / width, input_size / height] * 2)
    boxes = boxes.clamp(0, input_size)
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = (sides >= EMPTY_SIDE).all(dim=1)
    return {
        "image": pixels[0].round_().clamp_(0, 255).to(torch.uint8),
        "boxes": boxes[valid],
        "labels": sample["labels"][valid],
        "masks": resize_masks(sample["masks"][valid].bool(), mask_size, mask_size),
        "is_crowd": sample["is_crowd"][valid],
    }


def _ssd(sample: Sample) -> Sample:
    """The release's augmentation at the image's own resolution: colours, zoom-out, crop, mirror."""
    _, height, width = sample["image"].shape
    sample = {**sample, "image": distort_colours(sample["image"])}
    canvas = _zoomed_out(height, width) if _coin() else Window(0, 0, height, width)
    window, kept = _crop_of(canvas, sample)
    sample = _cut(sample, window, kept, torch.tensor(FILL_RGB))
    return _mirrored(sample) if _coin() else sample


def distort_colours(image: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, each with probability ½; the channels keep their order.

    The release decides by a coin whether contrast comes before or after the other two. Here it comes first: a factor on
    all values changes neither saturation nor hue, so that both orders give the same image. Values leave 0…255 in
    between, as in the release, and are clamped at the end.

    Args:
        image: (3, H, W) uint8 RGB.

    Returns:
        (3, H, W) uint8 RGB.
    """
    brightness = _uniform(*BRIGHTNESS) if _coin() else 0.0
    contrast = _uniform(*CONTRAST) if _coin() else 1.0
    saturation = _uniform(*SATURATION) if _coin() else 1.0
    hue = _uniform(*HUE) if _coin() else 0.0
    if brightness == 0.0 and contrast == saturation == 1.0 and hue == 0.0:
        return image
    values = image.float()
    if brightness or contrast != 1.0:
        values.add_(brightness).mul_(contrast)
    if hue:
        values = _with_hue_and_saturation(values, hue, saturation)
    elif saturation != 1.0:
        # V − C·saturation per channel: in the HSV cone the distance from the largest channel is what saturation scales
        values = torch.lerp(values.amax(dim=0, keepdim=True), values, saturation)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _with_hue_and_saturation(values: Tensor, degrees: float, saturation: float) -> Tensor:
    """Turn the hue and scale the saturation of (3, H, W) float RGB in the HSV cone."""
    red, green, blue = values
    largest, smallest = values.amax(dim=0), values.amin(dim=0)
    chroma = largest - smallest
    divisor = chroma.clamp(min=1e-6)
    # position on the hexagon of hues, 0…6: red at 0, green at 2, blue at 4
    sector = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sector.add_(degrees / 60)
    chroma.mul_(saturation)
    channels = []
    for offset in (5, 3, 1):
        place = (sector + offset).remainder_(6)
        channels.append(largest - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(channels)


def _zoomed_out(height: int, width: int) -> Window:
    """A canvas of up to four times the image's sides, with the image somewhere on it."""
    ratio = _uniform(*ZOOM_OUT)
    left, top = _uniform(0, width * ratio - width), _uniform(0, height * ratio - height)
    return Window(-int(top), -int(left), int(height * ratio), int(width * ratio))


def _crop_of(canvas: Window, sample: Sample) -> tuple[Window, Tensor]:
    """A random part of a canvas, and which objects (G,) bool stay: those whose centre lies inside.

    At least one object that is no crowd must stay. An image without such objects is kept whole.
    """
    boxes, regular = sample["boxes"], ~sample["is_crowd"].bool()
    everything = torch.ones(len(boxes), dtype=torch.bool)
    if not regular.any():
        return canvas, everything
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while _uniform(0, CROP_CHOICES) >= 1:
        for _ in range(CROP_TRIES):
            window = _random_crop(canvas)
            if window is None:
                continue
            first = torch.tensor([window.left, window.top])
            last = first + torch.tensor([window.width, window.height])
            kept = ((first < centres) & (centres < last)).all(dim=1)
            if (kept & regular).any():
                return window, kept
    return canvas, everything


def _random_crop(canvas: Window) -> Window | None:
    """One try: a rectangle on the canvas, or None where its shape is too long."""
    across, down, right, below = torch.rand(4, dtype=torch.float64).tolist()
    smallest, largest = CROP_SHARE
    width = canvas.width * (smallest + (largest - smallest) * across)
    height = canvas.height * (smallest + (largest - smallest) * down)
    if not CROP_ASPECT[0] <= height / width <= CROP_ASPECT[1]:
        return None
    left, top = (canvas.width - width) * right, (canvas.height - height) * below
    return Window(
        canvas.top + int(top), canvas.left + int(left), int(top + height) - int(top), int(left + width) - int(left)
    )


def _cut(sample: Sample, window: Window, kept: Tensor, fill: Tensor | None = None) -> Sample:
    """The part of a sample in a window, with the `kept` objects (G,) bool, their boxes clamped to what is seen.

    What lies beyond the image is filled with `fill` (3,), by default the mean colour of the part that is seen.
    """
    _, height, width = sample["image"].shape
    row, column = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.height, height), min(window.left + window.width, width)
    image = sample["image"][:, row:bottom, column:right]
    masks = sample["masks"][kept][:, row:bottom, column:right]
    above, before = row - window.top, column - window.left
    below, after = window.top + window.height - bottom, window.left + window.width - right
    if above or before or below or after:
        colour = image.float().mean(dim=(1, 2)) if fill is None else fill
        padded = colour.round().to(torch.uint8)[:, None, None].repeat(1, window.height, window.width)
        padded[:, above : above + image.shape[1], before : before + image.shape[2]] = image
        image, masks = padded, F.pad(masks, (before, after, above, below))
    corner = torch.tensor([window.left, window.top] * 2)
    return {
        "image": image,
        "boxes": _clipped(sample["boxes"][kept], window, height, width) - corner,
        "labels": sample["labels"][kept],
        "masks": masks,
        "is_crowd": sample["is_crowd"][kept],
    }


def _clipped(boxes: Tensor, window: Window, height: int, width: int) -> Tensor:
    """Boxes clamped to the part of a window that lies on an image of height × width."""
    top, bottom = max(window.top, 0), min(window.top + window.height, height)
    left, right = max(window.left, 0), min(window.left + window.width, width)
    columns, rows = boxes[:, 0::2].clamp(left, right), boxes[:, 1::2].clamp(top, bottom)
    return torch.stack([columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]], dim=1)


def _mirrored(sample: Sample) -> Sample:
    """Left and right swapped."""
    width, boxes = sample["image"].shape[2], sample["boxes"]
    boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    return {**sample, "image": sample["image"].flip(2), "masks": sample["masks"].flip(2), "boxes": boxes}


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _coin() -> bool:
    return torch.rand(()).item() < 0.5
