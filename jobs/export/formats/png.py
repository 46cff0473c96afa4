"""Masks as PNG images: the value of a pixel is its instance, or its class.

Where instances overlap, a pixel gets the one with the higher score, which is the earlier one in the row.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from jobs.export.formats.base import ExportImage, Format, compact_json
from jobs.table.read import LabelRow


class Png(Format):
    """`instances/NAME.png` (16 bit), `classes/NAME.png` (8 bit with a palette), and classes.json with their names."""

    def files(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        stem = self.stem(image)
        instances, classes = id_maps(image.row)
        yield f"instances/{stem}.png", png_bytes(instances)
        yield f"classes/{stem}.png", png_bytes(classes) if classes.max() > 255 else palette_png_bytes(classes)

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        values = {"0": "background", **{str(label + 1): name for label, name in self.facts.classes.items()}}
        yield "classes.json", compact_json(values)


def id_maps(row: LabelRow) -> tuple[np.ndarray, np.ndarray]:
    """Two (height, width) uint16 maps, 0 for background: the instance's index in its row + 1, and its label + 1.

    The index is the one in the label table, before instances were filtered out, so that it can be looked up there.
    """
    shape = (row.height or 0, row.width or 0)
    instances, classes = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    for instance in reversed(row.instances):
        inside = coco_mask.decode(instance.rle).astype(bool)
        instances[inside] = instance.index + 1
        classes[inside] = instance.label + 1
    return instances, classes


def split_bytes(values: np.ndarray) -> np.ndarray:
    """A uint16 map (height, width) as RGB (height, width, 3) uint8: red is the low byte, green the high one."""
    return np.stack([values & 255, values >> 8, np.zeros_like(values)], axis=2).astype(np.uint8)


def png_bytes(values: np.ndarray) -> bytes:
    """A 16-bit grey PNG of a uint16 map (height, width), or an RGB one of uint8 (height, width, 3)."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def palette_png_bytes(values: np.ndarray) -> bytes:
    """An 8-bit PNG whose palette shows each value up to 255 in a colour of its own."""
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putpalette(_palette())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _palette() -> bytes:
    """Black, then 255 colours: hues a golden angle apart, so that neighbouring labels differ."""
    colours = [(0.0, 0.0, 0.0)]
    for value in range(1, 256):
        hue = value * 0.381966 % 1
        colours.append(colorsys.hsv_to_rgb(hue, 0.55 + 0.45 * (value % 3) / 2, 1.0 - 0.3 * (value % 2)))
    return bytes(round(channel * 255) for colour in colours for channel in colour)
