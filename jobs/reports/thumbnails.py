"""Pictures small enough to stand in the page: WebP of a given number of bytes at most, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

_QUALITY = 78
_SHRINK = 0.8
_LEAST_SIDE = 64


def thumbnail(pixels: np.ndarray, longest_side: int, most_bytes: int) -> str:
    """A data URI of the picture (height, width, 3) uint8 RGB, no larger than it is and within both limits.

    A picture that is hard to compress is made smaller until it fits.
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
