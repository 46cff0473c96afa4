"""How the model makes the mask of one instance: prototypes × coefficients, added, sigmoid, cropped (paper, 3.3 and 5).

The masks without the crop show what the network separates by itself. Some prototypes respond to one side of an object,
others to contours or to the background, and they are subtracted from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from jobs.report.cards import data_uri, thumbnail, webp_bytes
from yolact.geometry.masks import assemble_masks, crop_masks, crop_regions
from yolact.images.network_input import network_input
from yolact.images.prepare import prepare_image
from yolact.inference.detections import DetectionRules
from yolact.inference.postprocess import detect
from yolact.network.model import Yolact

_COLUMNS = 8
_IMAGE_SIDE = 480
_IMAGE_BYTES = 60_000
#: dark blue to yellow in equal steps of lightness: readable with colour blindness, and on light and dark pages
_COLOURS = np.array([[13, 8, 60], [84, 15, 109], [156, 41, 99], [219, 88, 57], [251, 164, 20], [252, 255, 164]], float)


@dataclass(frozen=True)
class PrototypeView:
    """What the page shows of one image and its best instance. `image`, `sheet` and masks are data URIs.

    `order` has the prototypes, those with the largest part in this instance first. `steps` are pairs: a count, and the
    mask of so many prototypes. `ratio` is the image's width / height: prototypes are square, and are shown in the
    shape of the image. `box` is x1, y1, x2, y2 relative to the image.
    """

    image_id: str
    image: str
    sheet: str
    columns: int
    ratio: float
    label: int
    name: str
    score: float
    coefficients: list[float]
    order: list[int]
    steps: list[tuple[int, str]]
    cropped: str
    box: list[float]


@torch.inference_mode()
def prototype_view(model: Yolact, image_id: str, pixels: np.ndarray) -> PrototypeView | None:
    """The view of an image (height, width, 3) uint8 RGB; None where the model finds no instance in it."""
    model = model.cpu().eval()
    inputs = network_input(prepare_image(pixels, model.config.input_size), model.config, torch.device("cpu"))
    raw = model.infer(inputs[None])
    found = detect(raw, 0, model.anchors, DetectionRules(model.config.nms))
    if not len(found.scores):
        return None
    prototypes, coefficients = raw.prototypes[0], found.coefficients[0]
    weights = coefficients.abs() * prototypes.flatten(1).std(dim=1)
    order = weights.argsort(descending=True)
    box = found.boxes_relative[:1]
    whole = assemble_masks(prototypes, coefficients[None])
    label = int(found.labels[0])
    return PrototypeView(
        image_id=image_id,
        image=thumbnail(pixels, _IMAGE_SIDE, _IMAGE_BYTES),
        sheet=_sheet(prototypes.numpy()),
        columns=_COLUMNS,
        ratio=round(pixels.shape[1] / pixels.shape[0], 4),
        label=label,
        name=model.config.class_names[label],
        score=round(float(found.scores[0]), 3),
        coefficients=[round(value, 3) for value in coefficients.tolist()],
        order=order.tolist(),
        steps=[(count, _mask(_partial(prototypes, coefficients, order[:count]))) for count in _step_counts(len(order))],
        cropped=_mask(crop_masks(whole, crop_regions(box, *prototypes.shape[1:]))[0].numpy()),
        box=[round(value, 4) for value in box[0].clamp(0, 1).tolist()],
    )


def _step_counts(prototypes: int) -> list[int]:
    """1, 2, 4 … and all of them."""
    counts = [1 << power for power in range(prototypes.bit_length()) if 1 << power < prototypes]
    return [*counts, prototypes]


def _partial(prototypes: torch.Tensor, coefficients: torch.Tensor, chosen: torch.Tensor) -> np.ndarray:
    """The soft mask (h, w) that some of the prototypes give, not cropped."""
    mask: np.ndarray = assemble_masks(prototypes[chosen], coefficients[chosen][None])[0].numpy()
    return mask


def _sheet(prototypes: np.ndarray) -> str:
    """All prototypes (K, h, w) as one image with `_COLUMNS` in a row, each scaled to its own range of values."""
    count, height, width = prototypes.shape
    rows = -(-count // _COLUMNS)
    sheet = np.zeros((rows * height, _COLUMNS * width, 3), np.uint8)
    for number, prototype in enumerate(prototypes):
        low, high = float(prototype.min()), float(prototype.max())
        values = (prototype - low) / (high - low) if high > low else np.zeros_like(prototype)
        row, column = divmod(number, _COLUMNS)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = _coloured(values)
    return data_uri(webp_bytes(Image.fromarray(sheet), quality=70))


def _mask(values: np.ndarray) -> str:
    return data_uri(webp_bytes(Image.fromarray(_coloured(values)), quality=70))


def _coloured(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 (h, w) as (h, w, 3) uint8."""
    at = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(values, at, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
