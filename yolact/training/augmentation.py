"""Augmentation: the random changes of an image and its ground truth before a training step uses them.

A sample is a dict of `image` (3, H, W) uint8 RGB, `boxes` (G, 4) float xyxy in pixels of that image, `masks` (G, H, W)
bool or uint8, `labels` (G,) int64 and `is_crowd` (G,) bool. All randomness comes from torch's global generator. The
caller seeds the generator, so that a sample is a function of (seed, epoch, slot).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from yolact.geometry.masks import resize_masks

Sample = dict[str, Tensor]
Transform = Callable[[Sample], Sample]

Recipe = Literal["none", "ssd", "microscopy"]

#: least side of an object with "microscopy", as a share of the input's side: the finest detail that the network sees
MIN_BOX_SIDE_MICROSCOPY = 2.5 / 512
#: mean colour of ImageNet, with which the release fills the border of a zoom-out
FILL_RGB = (123.68, 116.78, 103.94)
#: a box with a smaller side (in pixels of the network input) has no extent left after clamping
EMPTY_SIDE = 1e-3


def build_augmentation(
    recipe: Recipe, input_size: int, mask_size: int | None = None, window_scale: float = 1.0
) -> Transform:
    """The transform from an image of any size to a training sample.

    Args:
        recipe: "none" resizes only; "ssd" is the release's (photometric distortion, zoom-out, crop, mirror);
            "microscopy" adds rotations by 90°, inversion and windows of random scale.
        input_size: side S of the network input.
        mask_size: side of the masks in the result; None gives S. The mask loss compares masks at the prototypes' size,
            so delivering that size saves the work on hundreds of full-size masks.
        window_scale: with "microscopy", the share of an image's side that makes a network input on average. A model
            that sees whole images at 768 px learns at less cost from 512-px windows of 2/3 of them, in which objects
            have the same size.

    Returns:
        A transform to `image` (3, S, S) uint8, boxes in pixels of S × S, masks (G, mask_size, mask_size) bool.

    Raises:
        ValueError: if the recipe is unknown, or cannot cut windows.
    """
    if recipe != "microscopy" and window_scale != 1.0:
        raise ValueError(f"augmentation {recipe!r} takes whole images; only microscopy can train on windows of them")
    mask_size = input_size if mask_size is None else mask_size
    if recipe == "none":
        return lambda sample: resize_sample(sample, input_size, mask_size)
    if recipe == "ssd":
        return lambda sample: resize_sample(_ssd(sample), input_size, mask_size)
    if recipe == "microscopy":
        random_part = partial(_microscopy, window_scale=window_scale)
        return lambda sample: resize_sample(random_part(sample), input_size, mask_size, MIN_BOX_SIDE_MICROSCOPY)
    raise ValueError(f"augmentation {recipe!r} is unknown; choose one of {', '.join(get_args(Recipe))}")


def resize_sample(sample: Sample, input_size: int, mask_size: int, min_side: float = 0.0) -> Sample:
    """Squash to the square network input as inference does: bilinear, half-pixel centres, no antialiasing.

    Boxes are clamped to the input before their sides are looked at: an object that touches the right or bottom edge
    may lie a rounding error outside. Objects with a side under `min_side` (a share of the input's side) are dropped,
    and objects that lie outside of the image altogether.
    """
    _, height, width = sample["image"].shape
    pixels = F.interpolate(sample["image"][None].float(), (input_size, input_size), mode="bilinear")
    boxes = sample["boxes"] * torch.tensor([input_size / width, input_size / height] * 2)
    boxes = boxes.clamp(0, input_size)
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = (sides >= max(min_side * input_size, EMPTY_SIDE)).all(dim=1)
    return {
        "image": pixels[0].round_().clamp_(0, 255).to(torch.uint8),
        "boxes": boxes[valid],
        "labels": sample["labels"][valid],
        "masks": resize_masks(sample["masks"][valid].bool(), mask_size, mask_size),
        "is_crowd": sample["is_crowd"][valid],
    }


# --- "ssd": the release's augmentation ---

#: added to all values of the image
BRIGHTNESS = (-32.0, 32.0)
#: factor on all values of the image
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
#: shift of the hue in degrees
HUE = (-18.0, 18.0)
#: sides of the zoomed-out canvas over those of the image
ZOOM_OUT = (1.0, 4.0)
#: choices of the crop, the first of which keeps everything. The release writes a bound of the overlap with the objects
#: beside each of the other five, but its test of the bound can never hold, so that they are all the same.
CROP_CHOICES = 6
CROP_TRIES = 50
#: sides of the crop over those of the canvas
CROP_SHARE = (0.3, 1.0)
#: height over width of the crop
CROP_ASPECT = (0.5, 2.0)


class Window(NamedTuple):
    """A rectangle in pixels of an image; it may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int


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


# --- "microscopy" ---

#: side of the window that becomes the network input, as a share of the image's sides
WINDOW_SHARE = (0.6, 1.7)
#: further factor between the window's two sides
WINDOW_STRETCH = (0.85, 1.18)


def _microscopy(sample: Sample, window_scale: float = 1.0) -> Sample:
    """Cells have no up and no colour of their own: any of eight orientations, any polarity, any contrast.

    Channels are permuted here, unlike in "ssd": which colour a stain has is an accident of the laboratory.
    """
    sample = _random_window(sample, window_scale)
    sample = _random_orientation(sample)
    image = v2.RandomPhotometricDistort(contrast=(0.6, 1.5), saturation=(0.5, 1.5), p=0.8)(sample["image"])
    image = v2.RandomInvert(p=0.15)(image)
    image = v2.RandomGrayscale(p=0.15)(image)
    if _uniform(0, 1) < 0.15:
        image = v2f.gaussian_blur(image, kernel_size=[5, 5], sigma=[_uniform(0.3, 1.2)])
    return {**sample, "image": image}


def _random_window(sample: Sample, scale: float) -> Sample:
    """Cut a window of random scale; where it reaches beyond the image, it is filled with the image's mean colour."""
    _, height, width = sample["image"].shape
    share = scale * math.exp(_uniform(math.log(WINDOW_SHARE[0]), math.log(WINDOW_SHARE[1])))
    stretch = math.sqrt(_uniform(*WINDOW_STRETCH))
    window_height, window_width = round(height * share * stretch), round(width * share / stretch)
    top = round(_uniform(min(0, height - window_height), max(0, height - window_height)))
    left = round(_uniform(min(0, width - window_width), max(0, width - window_width)))
    window = Window(top, left, window_height, window_width)
    # an object of which the window shows less than a third says little about objects
    kept = _areas(_clipped(sample["boxes"], window, height, width)) > _areas(sample["boxes"]) / 3
    return _cut(sample, window, kept)


def _random_orientation(sample: Sample) -> Sample:
    """One of the eight symmetries of the square."""
    if _coin():
        image, masks, boxes = sample["image"], sample["masks"], sample["boxes"]
        image, masks, boxes = image.transpose(1, 2), masks.transpose(1, 2), boxes[:, [1, 0, 3, 2]]
        sample = {**sample, "image": image, "masks": masks, "boxes": boxes}
    if _coin():
        sample = _mirrored(sample)
    if _coin():
        height, boxes = sample["image"].shape[1], sample["boxes"]
        boxes = torch.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], dim=1)
        sample = {**sample, "image": sample["image"].flip(1), "masks": sample["masks"].flip(1), "boxes": boxes}
    return sample


# --- what the recipes share ---


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


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _coin() -> bool:
    return torch.rand(()).item() < 0.5
