"""How the model puts one instance together: prototypes times coefficients, added up, squashed, cropped (paper, 3.3, 5).

Without the crop one sees what the network tells apart by itself: prototypes that answer to one side of an object, to
contours, to background, and subtract from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from jobs.report.cards import data_uri, thumbnail, webp_bytes
from yolact.geometry.masks import assemble_masks, crop_masks, crop_regions
from yolact.images.prepare import network_input, prepare_image
from yolact.inference.nms import NMS_KINDS
from yolact.inference.postprocess import detect
from yolact.network.model import Yolact

_COLUMNS = 8
_PICTURE_SIDE = 480
_PICTURE_BYTES = 60_000
#: dark blue to yellow by equal steps of lightness; readable without colour vision, and on light and dark pages
_COLOURS = np.array([[13, 8, 60], [84, 15, 109], [156, 41, 99], [219, 88, 57], [251, 164, 20], [252, 255, 164]], float)


@dataclass(frozen=True)
class PrototypeView:
    """What the page shows of one picture and its best instance. Pictures are data URIs.

    `order` are prototypes by how much they add to this instance; `steps` are (how many of them, the mask they give).
    `ratio` is the picture's width by its height: prototypes are square, and are shown in the picture's own shape.
    """

    image_id: str
    picture: str
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
    """The view of a picture (height, width, 3) uint8 RGB; None where the model finds nothing in it."""
    model = model.cpu().eval()
    inputs = network_input(prepare_image(pixels, model.config.input_size), model.config, torch.device("cpu"))
    raw = model.infer(inputs[None])
    found = detect(raw, 0, model.anchors, model.config.nms, NMS_KINDS[model.config.nms.kind])
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
        picture=thumbnail(pixels, _PICTURE_SIDE, _PICTURE_BYTES),
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
    """All prototypes (K, h, w) as one picture, `_COLUMNS` a row, each between its own least and greatest value."""
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
