"""Windows of an image, drawn at the size that training needs: pixels, boxes and masks, each in one sampling.

A window may reach beyond its image. Pixels are bilinear with half-pixel centres and without antialiasing, as inference
makes its input. What lies beyond the image has a fill colour.

Shapes: H × W the image, S the network input's side, G objects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as rle_tools
from torch import Tensor
from torch.nn import functional as F

from yolact.geometry.resampling import bilinear_neighbours
from yolact.training.packed import ImageTruth, shape_rle

#: Polygons are drawn this many times finer than asked for, and the middle pixels are taken: pycocotools rounds corners
#: to a fifth of a pixel, which is coarse where a pixel is four of the network input. An odd number has a middle.
FINER = 3

Rgb = tuple[float, float, float]


class Window(NamedTuple):
    """A rectangle in pixels of an image; it may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int

    def within(self, height: int, width: int) -> Window:
        """The part of the window that lies on an image of height × width."""
        top, bottom = max(self.top, 0), min(self.top + self.height, height)
        left, right = max(self.left, 0), min(self.left + self.width, width)
        return Window(top, left, max(0, bottom - top), max(0, right - left))


class Axis(NamedTuple):
    """Where the elements of one axis of the output look on the image."""

    lower: np.ndarray
    """(size,) int64 element of the image before the sampling point; it may lie beyond the image"""
    upper: np.ndarray
    """(size,) int64 element after the sampling point"""
    weight: np.ndarray
    """(size,) float32 weight of `upper`"""
    source: int
    """elements of the image"""

    @classmethod
    def of(cls, begin: int, length: int, size: int, source: int) -> Axis:
        """`size` output elements that show `length` elements of the image from `begin` on."""
        lower, upper, weight = bilinear_neighbours(length, size)
        return cls(lower + begin, upper + begin, weight, source)

    def touched(self) -> slice:
        """The output elements that depend on the image."""
        return _extent((self.upper >= 0) & (self.lower < self.source))

    def seen(self) -> slice:
        """The output elements whose sampling point lies on the image."""
        place = self.lower + self.weight
        return _extent((place >= -0.5) & (place <= self.source - 0.5))


class Pixels(NamedTuple):
    """A window of an image at the network's input size."""

    image: Tensor
    """(S, S, 3) uint8 RGB"""
    seen: tuple[int, int, int, int]
    """x1, y1, x2, y2 of the part that shows the image, ends excluded; the rest has the fill colour"""


def sample_pixels(pixels: np.ndarray, window: Window, size: int, fill: Rgb) -> Pixels:
    """A window of an image at the network's input size.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        window: what to show. It touches the image.
        size: S.
        fill: colour of what lies beyond the image, 0–255.
    """
    height, width = pixels.shape[:2]
    inside = window.within(height, width)
    rows = Axis.of(window.top, window.height, size, height)
    columns = Axis.of(window.left, window.width, size, width)
    if inside == window:
        image = _resize(pixels[window.top :, window.left :][: window.height, : window.width], size)
    else:
        image = _with_border(pixels, rows, columns, fill)
    y, x = rows.seen(), columns.seen()
    return Pixels(image, (x.start, y.start, x.stop, y.stop))


def _resize(pixels: np.ndarray, size: int) -> Tensor:
    """(h, w, 3) uint8 → (size, size, 3) uint8. PyTorch rounds after each of the two axes, an error of at most 1."""
    # PyTorch has fast code for this layout, and gives the result in the same layout
    channels_last = torch.from_numpy(np.ascontiguousarray(pixels)[None]).permute(0, 3, 1, 2)
    return F.interpolate(channels_last, (size, size), mode="bilinear")[0].permute(1, 2, 0).contiguous()


def _with_border(pixels: np.ndarray, rows: Axis, columns: Axis, fill: Rgb) -> Tensor:
    """(S, S, 3) uint8 of a window that reaches beyond the image. At the edges the fill colour is blended in."""
    colour = torch.tensor(fill).round().to(torch.uint8)
    image = colour.expand(len(rows.lower), len(columns.lower), 3).clone()
    y, x = rows.touched(), columns.touched()
    if y.start == y.stop or x.start == x.stop:
        return image
    top, left = (max(0, int(axis.lower[part.start])) for axis, part in ((rows, y), (columns, x)))
    bottom, right = (min(axis.source, int(axis.upper[part.stop - 1]) + 1) for axis, part in ((rows, y), (columns, x)))
    # one line of the fill colour all around
    framed = np.empty((bottom - top + 2, right - left + 2, 3), np.uint8)
    framed[[0, -1]] = framed[:, [0, -1]] = colour.numpy()
    framed[1:-1, 1:-1] = pixels[top:bottom, left:right]
    values = _blend_rows(torch.from_numpy(framed), rows, y, top - 1).transpose(0, 1).contiguous()
    values = _blend_rows(values, columns, x, left - 1).transpose(0, 1)
    image[y, x] = values.round_().to(torch.uint8)
    return image


def _blend_rows(values: Tensor, axis: Axis, part: slice, offset: int) -> Tensor:
    """(h, ·, 3) → (n, ·, 3) float: the rows that a part of an axis looks at, the first of which has index `offset`."""
    lower, upper = (torch.from_numpy(place[part] - offset).clamp_(0, len(values) - 1) for place in axis[:2])
    weight = torch.from_numpy(axis.weight[part])[:, None, None]
    return torch.lerp(values.index_select(0, lower).float(), values.index_select(0, upper).float(), weight)


def boxes_in_window(boxes: Tensor, truth: ImageTruth, window: Window, size: int) -> Tensor:
    """Boxes (G, 4) xyxy in pixels of the image → in pixels of the S × S input, clamped to what is seen of the image."""
    inside = window.within(truth.height, truth.width)
    x = boxes[:, 0::2].clamp(inside.left, inside.left + inside.width) - window.left
    y = boxes[:, 1::2].clamp(inside.top, inside.top + inside.height) - window.top
    x, y = x * (size / window.width), y * (size / window.height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1).clamp_(0, size)


def masks_in_window(truth: ImageTruth, kept: np.ndarray, window: Window, size: int) -> Tensor:
    """Masks of some objects in a window.

    Polygons are drawn at this size at once. Of an RLE the sampling points are looked up, and the mean of their four
    neighbours must be above ½.

    Args:
        truth: of the image.
        kept: (G,) int64 which objects.
        window: what to show.
        size: side of the result.

    Returns:
        (len(kept), size, size) bool.
    """
    rows = Axis.of(window.top, window.height, size, truth.height)
    columns = Axis.of(window.left, window.width, size, truth.width)
    masks = np.zeros((len(kept), size, size), bool)
    for mask, number in zip(masks, kept.tolist(), strict=True):
        shape = truth.shapes[number]
        if isinstance(shape, bytes):
            _sample_rle(mask, shape, rows, columns)
        else:
            _draw_polygons(mask, shape, window)
    # a polygon may reach over the edge of its image
    y, x = rows.seen(), columns.seen()
    masks[:, : y.start] = masks[:, y.stop :] = False
    masks[:, :, : x.start] = masks[:, :, x.stop :] = False
    return torch.from_numpy(masks)


def _draw_polygons(mask: np.ndarray, shape: tuple[np.ndarray, ...], window: Window) -> None:
    side = FINER * len(mask)
    corner = np.array([window.left, window.top])
    scale = np.array([side / window.width, side / window.height])
    placed = tuple(((part.reshape(-1, 2) - corner) * scale).reshape(-1) for part in shape)
    mask[:] = rle_tools.decode(shape_rle(placed, side, side))[FINER // 2 :: FINER, FINER // 2 :: FINER]


def _sample_rle(mask: np.ndarray, counts: bytes, rows: Axis, columns: Axis) -> None:
    source = rle_tools.decode({"size": [rows.source, columns.source], "counts": counts})
    y, x = (_touching(axis, source.any(axis=other)) for axis, other in ((rows, 1), (columns, 0)))
    value = np.zeros(mask[y, x].shape, np.float32)
    for row, down in ((rows.lower[y], 1 - rows.weight[y]), (rows.upper[y], rows.weight[y])):
        for column, across in ((columns.lower[x], 1 - columns.weight[x]), (columns.upper[x], columns.weight[x])):
            share = (down * _on(row, rows.source))[:, None] * (across * _on(column, columns.source))[None]
            value += source[row.clip(0, rows.source - 1)[:, None], column.clip(0, columns.source - 1)] * share
    np.greater(value, 0.5, out=mask[y, x])


def _touching(axis: Axis, occupied: np.ndarray) -> slice:
    """The output elements that look at the extent of True in (source,) bool."""
    extent = _extent(occupied)
    return _extent((axis.upper >= extent.start) & (axis.lower < extent.stop))


def _on(place: np.ndarray, source: int) -> np.ndarray:
    return (place >= 0) & (place < source)


def _extent(inside: np.ndarray) -> slice:
    """From the first to the last True of (n,) bool; empty where there is none."""
    if not inside.any():
        return slice(0, 0)
    return slice(int(inside.argmax()), len(inside) - int(inside[::-1].argmax()))
