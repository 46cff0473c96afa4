"""The cards of the page: for one image a thumbnail, and for each of its instances an outline, class and score."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jobs.report.truth import GroundTruth, ImageTruth, Match, match_instances
from jobs.storage import TransientStorageError
from jobs.table.images import ImageSource
from jobs.table.polygons import float32_json, mask_polygons, polygon_rings
from jobs.table.read import Instance, LabelRow, Piece
from yolact.images.decode import ImageError, decode_image

_MOST_PIXELS = 512 << 20
_MOST_BYTES = 256 << 20
#: requests for images that may time out before the lake counts as unreachable
_UNREACHABLE_IMAGES = 3


def read_pixels(source: ImageSource, part: str, image_id: str, uri: str) -> np.ndarray | str:
    """An image of the lake as (height, width, 3) uint8 RGB, upright; or a text that says why it cannot be read."""
    [data] = source.fetch(part, [(image_id, uri)])
    if not isinstance(data, bytes):
        return data.reason
    try:
        return decode_image(data, max_pixels=_MOST_PIXELS, max_bytes=_MOST_BYTES)
    except ImageError as error:
        return error.reason


@dataclass(frozen=True)
class Pick:
    """An image chosen for the page. `sampled` is its place in the sample, `reviewed` its place in the review queue.

    Either is None where the image is not in it.
    """

    row: int
    sampled: int | None = None
    reviewed: int | None = None
    worry: float = 0.0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardMaker:
    """Makes the cards of one table's picks; it is sent to the workers.

    A thumbnail is at most `side` pixels long and `most_bytes` bytes large.
    """

    source: ImageSource
    side: int
    most_bytes: int
    truth: GroundTruth | None = None

    def cards(self, piece: Piece, picks: Sequence[Pick]) -> Iterator[dict[str, Any]]:
        """Cards for some rows of a piece, in the rows' order."""
        wanted = {pick.row: pick for pick in picks}
        unreachable: list[str] = []
        for number, row in enumerate(piece.images()):
            pick = wanted.pop(number, None)
            if pick is not None:
                yield self.card(row, pick, piece.file_name, unreachable)
            if not wanted:
                return

    def card(self, row: LabelRow, pick: Pick, part: str, unreachable: list[str]) -> dict[str, Any]:
        """The card of one row.

        `unreachable` collects the errors of requests that the lake did not answer. After a few of them no more images
        are requested.
        """
        truth = None if self.truth is None else self.truth.of(row)
        match = None if truth is None else match_instances(row.instances, truth)
        image, problem = self._image(row, part, unreachable)
        return {
            "id": row.image_id,
            "uri": row.uri,
            "part": part,
            "status": row.status,
            "error": row.error or problem,
            "height": row.height,
            "width": row.width,
            "image": image,
            "sampled": pick.sampled,
            "reviewed": pick.reviewed,
            "worry": round(pick.worry, 2),
            "reasons": list(pick.reasons),
            "instances": [self._instance(instance, match) for instance in row.instances],
            "missed": None if match is None or truth is None else self._missed(match, truth),
        }

    def _image(self, row: LabelRow, part: str, unreachable: list[str]) -> tuple[str | None, str | None]:
        """The thumbnail, or the reason why there is none."""
        if not row.ok:
            return None, None
        if len(unreachable) >= _UNREACHABLE_IMAGES:
            return None, f"the image cannot be shown: {unreachable[-1]}"
        try:
            pixels = read_pixels(self.source, part, row.image_id, row.uri)
        except TransientStorageError as error:
            unreachable.append(str(error))
            pixels = str(error)
        if isinstance(pixels, str):
            return None, f"the image cannot be shown: {pixels}"
        return thumbnail(pixels, self.side, self.most_bytes), None

    def _instance(self, instance: Instance, match: Match | None) -> dict[str, Any]:
        return {
            "label": instance.label,
            "score": float32_json(instance.score),
            "mask_score": None if instance.mask_score is None else float32_json(instance.mask_score),
            "box": [round(value, 1) for value in instance.bbox],
            "area": instance.area,
            "path": self.outline(instance.rle),
            "wrong": None if match is None else instance.index in match.false_positives,
        }

    def _missed(self, match: Match, truth: ImageTruth) -> list[dict[str, Any]]:
        return [
            {"name": truth.objects[i].name, "path": self.outline(truth.objects[i].rle), "box": truth.objects[i].box}
            for i in match.missed
        ]

    def outline(self, rle: dict[str, Any]) -> str:
        """An SVG path in the image's pixels, exact to one pixel of the thumbnail. Fill it by the even-odd rule."""
        tolerance = max(1.0, max(rle["size"]) / self.side)
        rings = (ring for part in mask_polygons(rle, tolerance) for ring in polygon_rings(part))
        return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring) + "Z" for ring in rings)


_QUALITY = 78
_SHRINK = 0.8
_LEAST_SIDE = 64


def thumbnail(pixels: np.ndarray, longest_side: int, most_bytes: int) -> str:
    """A data URI of the pixels (height, width, 3) uint8 RGB, scaled down to both limits and never scaled up.

    An image that does not compress to `most_bytes` is made smaller until it fits, but not below 64 pixels.
    """
    image = Image.fromarray(pixels)
    side = min(longest_side, max(image.size))
    while True:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        data = webp_bytes(small)
        if len(data) <= most_bytes or side <= _LEAST_SIDE:
            return data_uri(data)
        side = int(side * _SHRINK)


def webp_bytes(image: Image.Image, quality: int = _QUALITY) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=2)
    return stream.getvalue()


def data_uri(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")
