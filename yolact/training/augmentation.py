"""Augmentation: the random changes of an image and its ground truth before a training step uses them.

All randomness comes from torch's global generator. The caller seeds the generator, so that a sample is a function of
(seed, epoch, slot).

The recipes "none" and "ssd" choose a window from the boxes alone. Then the pixels and masks of the window are sampled
once, at the size that training needs. "microscopy" works on the pixels of the whole window.

Shapes: H × W the image, S the network input's side, G objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from yolact.geometry.boxes import box_area
from yolact.geometry.masks import resize_masks
from yolact.training.colours import ColourChange, draw_colour_change
from yolact.training.packed import ImageTruth
from yolact.training.random import coin, uniform
from yolact.training.windows import Window, boxes_in_window, masks_in_window, sample_pixels

Recipe = Literal["none", "ssd", "microscopy"]

#: least side of an object with "microscopy", as a share of the input's side: the finest detail that the network sees
MIN_BOX_SIDE_MICROSCOPY = 2.5 / 512
#: mean colour of ImageNet, with which the release fills the border of a zoom-out
FILL_RGB = (123.68, 116.78, 103.94)
#: a box with a smaller side (in pixels of the network input) has no extent left after clamping
EMPTY_SIDE = 1e-3


class AugmentedImage(NamedTuple):
    """What an augmentation makes of an image."""

    image: Tensor
    """(3, S, S) uint8 RGB, in memory by rows of pixels (channels last); without its colour change"""
    boxes: Tensor
    """(G, 4) float32 xyxy in pixels of the S × S input"""
    labels: Tensor
    """(G,) int64, 0-based"""
    masks: Tensor
    """(G, mask_size, mask_size) bool"""
    is_crowd: Tensor
    """(G,) bool"""
    colours: ColourChange
    """to be applied where the network runs, see `yolact.training.colours.change_colours`"""


#: from (H, W, 3) uint8 RGB pixels and their ground truth to a sample
Augmentation = Callable[[np.ndarray, ImageTruth], AugmentedImage]


def build_augmentation(
    recipe: Recipe, input_size: int, mask_size: int | None = None, window_scale: float = 1.0
) -> Augmentation:
    """The augmentation that makes training samples of images of any size.

    Args:
        recipe: "none" resizes only; "ssd" is the release's (photometric distortion, zoom-out, crop, mirror);
            "microscopy" adds rotations by 90°, inversion and windows of random scale.
        input_size: side S of the network input.
        mask_size: side of the masks in the result; None gives S. The mask loss compares masks at the prototypes' size,
            so delivering that size saves the work on hundreds of full-size masks.
        window_scale: with "microscopy", the share of an image's side that makes a network input on average. A model
            that sees whole images at 768 px learns at less cost from 512-px windows of 2/3 of them, in which objects
            have the same size.

    Raises:
        ValueError: if the recipe is unknown, or cannot cut windows.
    """
    if recipe != "microscopy" and window_scale != 1.0:
        raise ValueError(f"augmentation {recipe!r} takes whole images; only microscopy can train on windows of them")
    mask_size = input_size if mask_size is None else mask_size
    if recipe == "none":
        return partial(_whole, input_size=input_size, mask_size=mask_size)
    if recipe == "ssd":
        return partial(_ssd, input_size=input_size, mask_size=mask_size)
    if recipe == "microscopy":
        return partial(_microscopy, input_size=input_size, mask_size=mask_size, window_scale=window_scale)
    raise ValueError(f"augmentation {recipe!r} is unknown; choose one of {', '.join(get_args(Recipe))}")


# --- "none" and "ssd": one sampling of a window ---


@dataclass(frozen=True)
class View:
    """What a sample shows of an image."""

    window: Window
    kept: Tensor
    """(G,) bool, the objects that stay"""
    mirrored: bool
    colours: ColourChange


def _whole(pixels: np.ndarray, truth: ImageTruth, *, input_size: int, mask_size: int) -> AugmentedImage:
    """The whole image, squashed to the square network input as inference does."""
    everything = torch.ones(len(truth.labels), dtype=torch.bool)
    view = View(Window(0, 0, truth.height, truth.width), everything, mirrored=False, colours=ColourChange())
    return show(view, pixels, truth, input_size, mask_size)


def _ssd(pixels: np.ndarray, truth: ImageTruth, *, input_size: int, mask_size: int) -> AugmentedImage:
    """The release's augmentation."""
    return show(draw_ssd_view(truth), pixels, truth, input_size, mask_size)


def show(view: View, pixels: np.ndarray, truth: ImageTruth, input_size: int, mask_size: int) -> AugmentedImage:
    """Sample a view once, at the network's size.

    Boxes are clamped to what is seen before their sides are looked at: an object that touches the right or bottom edge
    may lie a rounding error outside. Objects that lie outside of the view altogether are dropped.
    """
    window = view.window
    sampled = sample_pixels(pixels, window, input_size, FILL_RGB)
    boxes = boxes_in_window(torch.from_numpy(truth.boxes), truth, window, input_size)
    valid = view.kept & ((boxes[:, 2:] - boxes[:, :2]) >= EMPTY_SIDE).all(dim=1)
    boxes = boxes[valid]
    masks = masks_in_window(truth, valid.numpy().nonzero()[0], window, mask_size)
    image, (x1, y1, x2, y2) = sampled.image, sampled.seen
    if view.mirrored:
        image, masks, boxes = image.flip(1), masks.flip(2), _mirrored_boxes(boxes, input_size)
        x1, x2 = input_size - x2, input_size - x1
    return AugmentedImage(
        image.permute(2, 0, 1),
        boxes,
        torch.from_numpy(truth.labels)[valid],
        masks,
        torch.from_numpy(truth.is_crowd)[valid],
        view.colours._replace(x1=x1, y1=y1, x2=x2, y2=y2),
    )


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


def draw_ssd_view(truth: ImageTruth) -> View:
    """The random choices of the release's augmentation: colours, zoom-out, crop, mirror."""
    colours = draw_colour_change()
    height, width = truth.height, truth.width
    canvas = _zoomed_out(height, width) if coin() else Window(0, 0, height, width)
    window, kept = _crop_of(canvas, truth)
    return View(window, kept, mirrored=coin(), colours=colours)


def _zoomed_out(height: int, width: int) -> Window:
    """A canvas of up to four times the image's sides, with the image somewhere on it."""
    ratio = uniform(*ZOOM_OUT)
    left, top = uniform(0, width * ratio - width), uniform(0, height * ratio - height)
    return Window(-int(top), -int(left), int(height * ratio), int(width * ratio))


def _crop_of(canvas: Window, truth: ImageTruth) -> tuple[Window, Tensor]:
    """A random part of a canvas, and which objects (G,) bool stay: those whose centre lies inside.

    At least one object that is no crowd must stay. An image without such objects is kept whole.
    """
    boxes, regular = torch.from_numpy(truth.boxes), ~torch.from_numpy(truth.is_crowd)
    everything = torch.ones(len(boxes), dtype=torch.bool)
    if not regular.any():
        return canvas, everything
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while uniform(0, CROP_CHOICES) >= 1:
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


@dataclass(frozen=True)
class Scene:
    """An image with its ground truth while "microscopy" changes it, at a resolution of its own."""

    image: Tensor
    """(3, H, W) uint8 RGB"""
    boxes: Tensor
    """(G, 4) float32 xyxy in pixels of the image"""
    labels: Tensor
    """(G,) int64"""
    masks: Tensor
    """(G, H, W) bool or uint8"""
    is_crowd: Tensor
    """(G,) bool"""

    @staticmethod
    def of(pixels: np.ndarray, truth: ImageTruth) -> Scene:
        """The whole image."""
        return Scene(
            # contiguous planes: the crop and resize kernels are faster on them than on a transposed view
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            torch.from_numpy(truth.boxes),
            torch.from_numpy(truth.labels),
            torch.from_numpy(truth.whole_masks()),
            torch.from_numpy(truth.is_crowd),
        )


def _microscopy(
    pixels: np.ndarray, truth: ImageTruth, *, input_size: int, mask_size: int, window_scale: float
) -> AugmentedImage:
    """Cells have no up and no colour of their own: any of eight orientations, any polarity, any contrast.

    Channels are permuted here, unlike in "ssd": which colour a stain has is an accident of the laboratory.
    """
    scene = _random_orientation(_random_window(Scene.of(pixels, truth), window_scale))
    image = v2.RandomPhotometricDistort(contrast=(0.6, 1.5), saturation=(0.5, 1.5), p=0.8)(scene.image)
    image = v2.RandomInvert(p=0.15)(image)
    image = v2.RandomGrayscale(p=0.15)(image)
    if uniform(0, 1) < 0.15:
        image = v2f.gaussian_blur(image, kernel_size=[5, 5], sigma=[uniform(0.3, 1.2)])
    return _squashed(replace(scene, image=image), input_size, mask_size)


def _squashed(scene: Scene, input_size: int, mask_size: int) -> AugmentedImage:
    """Squash to the square network input as inference does: bilinear, half-pixel centres, no antialiasing.

    Objects with a side under `MIN_BOX_SIDE_MICROSCOPY` are dropped.
    """
    _, height, width = scene.image.shape
    pixels = F.interpolate(scene.image[None].float(), (input_size, input_size), mode="bilinear")
    boxes = scene.boxes * torch.tensor([input_size / width, input_size / height] * 2)
    boxes = boxes.clamp(0, input_size)
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = (sides >= MIN_BOX_SIDE_MICROSCOPY * input_size).all(dim=1)
    image = pixels[0].round_().clamp_(0, 255).to(torch.uint8)
    return AugmentedImage(
        image.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        boxes[valid],
        scene.labels[valid],
        resize_masks(scene.masks[valid].bool(), mask_size, mask_size),
        scene.is_crowd[valid],
        ColourChange(),
    )


def _random_window(scene: Scene, scale: float) -> Scene:
    """Cut a window of random scale; where it reaches beyond the image, it is filled with the image's mean colour."""
    _, height, width = scene.image.shape
    share = scale * math.exp(uniform(math.log(WINDOW_SHARE[0]), math.log(WINDOW_SHARE[1])))
    stretch = math.sqrt(uniform(*WINDOW_STRETCH))
    window_height, window_width = round(height * share * stretch), round(width * share / stretch)
    top = round(uniform(min(0, height - window_height), max(0, height - window_height)))
    left = round(uniform(min(0, width - window_width), max(0, width - window_width)))
    window = Window(top, left, window_height, window_width)
    # an object of which the window shows less than a third says little about objects
    kept = box_area(_clipped(scene.boxes, window.within(height, width))) > box_area(scene.boxes) / 3
    return _cut(scene, window, kept)


def _random_orientation(scene: Scene) -> Scene:
    """One of the eight symmetries of the square."""
    if coin():
        image, masks, boxes = scene.image.transpose(1, 2), scene.masks.transpose(1, 2), scene.boxes[:, [1, 0, 3, 2]]
        scene = replace(scene, image=image, masks=masks, boxes=boxes)
    if coin():
        boxes = _mirrored_boxes(scene.boxes, scene.image.shape[2])
        scene = replace(scene, image=scene.image.flip(2), masks=scene.masks.flip(2), boxes=boxes)
    if coin():
        height, boxes = scene.image.shape[1], scene.boxes
        boxes = torch.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], dim=1)
        scene = replace(scene, image=scene.image.flip(1), masks=scene.masks.flip(1), boxes=boxes)
    return scene


def _cut(scene: Scene, window: Window, kept: Tensor) -> Scene:
    """The part of a scene in a window, with the `kept` objects (G,) bool, their boxes clamped to what is seen.

    What lies beyond the image is filled with the mean colour of the part that is seen.
    """
    _, height, width = scene.image.shape
    inside = window.within(height, width)
    bottom, right = inside.top + inside.height, inside.left + inside.width
    image = scene.image[:, inside.top : bottom, inside.left : right]
    masks = scene.masks[kept][:, inside.top : bottom, inside.left : right]
    if inside != window:
        above, before = inside.top - window.top, inside.left - window.left
        below, after = window.top + window.height - bottom, window.left + window.width - right
        colour = image.float().mean(dim=(1, 2))
        padded = colour.round().to(torch.uint8)[:, None, None].repeat(1, window.height, window.width)
        padded[:, above : above + inside.height, before : before + inside.width] = image
        image, masks = padded, F.pad(masks, (before, after, above, below))
    corner = torch.tensor([window.left, window.top] * 2)
    boxes = _clipped(scene.boxes[kept], inside) - corner
    return Scene(image, boxes, scene.labels[kept], masks, scene.is_crowd[kept])


def _clipped(boxes: Tensor, inside: Window) -> Tensor:
    """Boxes (G, 4) xyxy clamped to a rectangle."""
    first = torch.tensor([inside.left, inside.top] * 2)
    last = torch.tensor([inside.left + inside.width, inside.top + inside.height] * 2)
    return boxes.clamp(first, last)


def _mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (G, 4) xyxy with left and right swapped."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
