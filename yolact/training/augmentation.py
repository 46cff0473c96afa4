"""What happens to a picture and its ground truth before training sees them.

A sample is a dict of `image` (3, H, W) uint8 RGB, `boxes` (G, 4) float xyxy in pixels of that image, `masks` (G, H, W)
bool or uint8, `labels` (G,) int64 and `is_crowd` (G,) bool. All randomness comes from torch's global generator: whoever
calls seeds it, so that a sample is a function of (seed, epoch, image).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from yolact.geometry.masks import resize_masks

Sample = dict[str, Tensor]
Transform = Callable[[Sample], Sample]

Recipe = Literal["none", "ssd", "microscopy"]

#: the release drops boxes under 4 px of a 550-px input
MIN_BOX_SIDE = 4 / 550
#: nuclei are smaller: half as much again as the finest detail that the network sees
MIN_BOX_SIDE_MICROSCOPY = 2.5 / 512
#: mean of ImageNet's pixels, the release's fill for zoom-out
FILL_RGB = (123.68, 116.78, 103.94)


def build_augmentation(
    recipe: Recipe, input_size: int, mask_size: int | None = None, window_scale: float = 1.0
) -> Transform:
    """The transform from a picture of any size to a training sample.

    Args:
        recipe: "none" resizes only; "ssd" is the paper's (photometric distortion, zoom-out, IoU-constrained crop,
            mirror); "microscopy" adds rotations by 90°, inversion and crops at random scale, without a crop's demand
            for a certain overlap: it is cheap with hundreds of objects.
        input_size: side S of the network input.
        mask_size: side of the masks in the result; None gives S. The mask loss compares masks at the prototypes' size,
            so delivering that size spares hundreds of full-size masks.
        window_scale: with "microscopy", the share of a picture's side that makes a network input on average. A model
            that sees whole pictures at 768 px learns at less cost from 512-px windows of 2/3 of them, in which
            objects have the same size.

    Returns:
        A transform to `image` (3, S, S) uint8, boxes in pixels of S × S, masks (G, mask_size, mask_size) bool.

    Raises:
        ValueError: if the recipe is unknown, or cannot cut windows.
    """
    if recipe != "microscopy" and window_scale != 1.0:
        raise ValueError(f"augmentation {recipe!r} takes whole pictures; only microscopy can train on windows of them")
    mask_size = input_size if mask_size is None else mask_size
    if recipe == "none":
        return lambda sample: resize_sample(sample, input_size, mask_size, min_side=0.0)
    random_part: Transform
    if recipe == "ssd":
        random_part, min_side = _ssd, MIN_BOX_SIDE
    elif recipe == "microscopy":
        random_part, min_side = partial(_microscopy, window_scale=window_scale), MIN_BOX_SIDE_MICROSCOPY
    else:
        raise ValueError(f"augmentation {recipe!r} is unknown; choose one of {', '.join(get_args(Recipe))}")
    return lambda sample: resize_sample(random_part(sample), input_size, mask_size, min_side)


def resize_sample(sample: Sample, input_size: int, mask_size: int, min_side: float) -> Sample:
    """Squash to the square network input as inference does: bilinear, half-pixel centres, no antialiasing.

    Boxes with a side under `min_side` (share of the image) are dropped with their masks, and so are masks that were
    cropped away.
    """
    _, height, width = sample["image"].shape
    pixels = sample["image"].as_subclass(Tensor)[None].float()
    pixels = F.interpolate(pixels, (input_size, input_size), mode="bilinear", align_corners=False)
    boxes = sample["boxes"].as_subclass(Tensor) * torch.tensor([input_size / width, input_size / height] * 2)
    boxes, valid = v2f.sanitize_bounding_boxes(
        boxes,
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(input_size, input_size),
        min_size=max(min_side * input_size, 1e-3),
        min_area=1e-6,
    )
    masks = sample["masks"].as_subclass(Tensor)[valid]
    return {
        "image": pixels[0].round_().clamp_(0, 255).to(torch.uint8),
        "boxes": boxes,
        "labels": sample["labels"][valid],
        "masks": resize_masks(masks.bool(), mask_size, mask_size),
        "is_crowd": sample["is_crowd"][valid],
    }


def _ssd(sample: Sample) -> Sample:
    """The paper's augmentation, at the picture's own resolution."""
    sample = _as_tv_tensors(sample)
    steps: list[Callable[[Sample], Sample]] = [
        v2.RandomPhotometricDistort(p=1.0),
        v2.RandomZoomOut(fill={tv_tensors.Image: FILL_RGB, "others": 0}, side_range=(1.0, 4.0)),
    ]
    if len(sample["boxes"]):  # a crop that must overlap a box needs one
        steps.append(v2.RandomIoUCrop())
    steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps)(sample)


def _as_tv_tensors(sample: Sample) -> Sample:
    size = tuple(sample["image"].shape[-2:])
    boxes = tv_tensors.BoundingBoxes(sample["boxes"], format="XYXY", canvas_size=size)
    return {
        **sample,
        "image": tv_tensors.Image(sample["image"]),
        "boxes": boxes,
        "masks": tv_tensors.Mask(sample["masks"]),
    }


def _microscopy(sample: Sample, window_scale: float = 1.0) -> Sample:
    """Cells have no up and no colour of their own: any of eight orientations, any polarity, any contrast."""
    sample = _random_window(sample, window_scale)
    sample = _random_orientation(sample)
    image = v2.RandomPhotometricDistort(contrast=(0.6, 1.5), saturation=(0.5, 1.5), p=0.8)(sample["image"])
    image = v2.RandomInvert(p=0.15)(image)
    image = v2.RandomGrayscale(p=0.15)(image)
    if _uniform(0, 1) < 0.15:
        image = v2f.gaussian_blur(image, kernel_size=[5, 5], sigma=[_uniform(0.3, 1.2)])
    return {**sample, "image": image}


#: side of the window that becomes the network input, as a share of the picture's sides
WINDOW_SHARE = (0.6, 1.7)
#: further factor between the window's two sides
WINDOW_STRETCH = (0.85, 1.18)


def _random_window(sample: Sample, scale: float) -> Sample:
    """Cut a window of random scale; where it is larger than the picture, the border is filled with its mean colour."""
    _, height, width = sample["image"].shape
    share = scale * math.exp(_uniform(math.log(WINDOW_SHARE[0]), math.log(WINDOW_SHARE[1])))
    stretch = math.sqrt(_uniform(*WINDOW_STRETCH))
    window_height, window_width = round(height * share * stretch), round(width * share / stretch)
    top = round(_uniform(min(0, height - window_height), max(0, height - window_height)))
    left = round(_uniform(min(0, width - window_width), max(0, width - window_width)))
    row, column = max(top, 0), max(left, 0)
    bottom, right = min(top + window_height, height), min(left + window_width, width)

    boxes = sample["boxes"]
    clipped = torch.stack(
        [boxes[:, 0].clamp(left, right), boxes[:, 1].clamp(top, bottom), boxes[:, 2].clamp(left, right),
         boxes[:, 3].clamp(top, bottom)], dim=1
    )  # fmt: skip
    # an object of which the window shows less than a third says little about objects
    seen = _areas(clipped) > _areas(boxes) / 3
    image = sample["image"][:, row:bottom, column:right]
    masks = sample["masks"][seen][:, row:bottom, column:right]
    padding = [column - left, left + window_width - right, row - top, top + window_height - bottom]
    if any(padding):
        fill = image.float().mean(dim=(1, 2)).round().to(torch.uint8)
        padded = fill[:, None, None].expand(3, window_height, window_width).clone()
        padded[:, row - top : bottom - top, column - left : right - left] = image
        image, masks = padded, F.pad(masks, padding)
    return {
        "image": image,
        "boxes": clipped[seen] - torch.tensor([left, top, left, top]),
        "labels": sample["labels"][seen],
        "masks": masks,
        "is_crowd": sample["is_crowd"][seen],
    }


def _random_orientation(sample: Sample) -> Sample:
    """One of the eight symmetries of the square."""
    image, masks, boxes = sample["image"], sample["masks"], sample["boxes"]
    if _uniform(0, 1) < 0.5:
        image, masks, boxes = image.transpose(1, 2), masks.transpose(1, 2), boxes[:, [1, 0, 3, 2]]
    _, height, width = image.shape
    if _uniform(0, 1) < 0.5:
        image, masks = image.flip(2), masks.flip(2)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    if _uniform(0, 1) < 0.5:
        image, masks = image.flip(1), masks.flip(1)
        boxes = torch.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], dim=1)
    return {**sample, "image": image, "masks": masks, "boxes": boxes}


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()
