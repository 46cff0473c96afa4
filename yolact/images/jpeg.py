"""JPEG: which segments of a file matter for its pixels, and the orientation that its EXIF segment gives.

Pillow interprets every application segment, and refuses the whole file for one that is shorter than its kind should
be. So Pillow is given only the two that tell how colours are stored: JFIF's, and Adobe's.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import JpegImagePlugin

from yolact.images.errors import ImageError
from yolact.images.exif import orientation_of
from yolact.images.values import to_rgb

_SCAN, _END = 0xDA, 0xD9
_COMMENT, _JFIF, _EXIF, _ADOBE = 0xFE, 0xE0, 0xE1, 0xEE
_APPLICATION = range(0xE0, 0xF0)
#: markers without a length and a body, and what is no marker (padding is 0xFF)
_BARE = {0x00, 0x01, *range(0xD0, 0xD9), 0xFF}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
#: frames that no decoder here reads
_OTHER_FRAMES = {
    0xC5: "a hierarchical JPEG file",
    0xC6: "a hierarchical JPEG file",
    0xC7: "a hierarchical JPEG file",
    0xCB: "a lossless JPEG file with arithmetic codes",
    0xCD: "a hierarchical JPEG file",
    0xCE: "a hierarchical JPEG file",
    0xCF: "a hierarchical JPEG file",
    0xF7: "a JPEG-LS file",
}


def read_jpeg(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """The RGB pixels of a JPEG file (of several images in one file, the first), not yet upright, and the orientation.

    Returns:
        (height, width, 3) uint8, and the EXIF orientation, 1 to 8.

    Raises:
        ImageError: for a kind of JPEG that is not read, and for more than `max_pixels`.
        Exception: what Pillow raises for broken files.
    """
    file, orientation = without_side_segments(data)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(file))
    ImageError.check_pixels(image.width, image.height, max_pixels)
    image.load()
    return np.asarray(to_rgb(image)), orientation


def without_side_segments(data: bytes) -> tuple[bytes, int]:
    """A JPEG file without the segments that no pixel depends on, and its EXIF orientation.

    A file whose segments cannot be followed stays as it is.

    Raises:
        ImageError: unsupported, for kinds of JPEG that no decoder here reads.
    """
    view = memoryview(data)
    kept: list[memoryview] = []
    orientation, place, kept_from, end = 1, 2, 0, 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if place > end:  # stray bytes, which libjpeg skips and Pillow may not
            kept.append(view[kept_from:end])
            kept_from = place
        if marker == _SCAN:
            kept.append(view[kept_from:])
            return (data if len(kept) == 1 else b"".join(kept)), orientation
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _END or end < place + 4 or end > len(data):
            break
        body = data[place + 4 : end]
        if marker in _FRAMES or marker in _OTHER_FRAMES:
            _check_frame(marker, body)
        if marker == _EXIF and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = orientation_of(body)
        if marker == _COMMENT or (marker in _APPLICATION and not _tells_colours(marker, body)):
            kept.append(view[kept_from:place])
            kept_from = end
        place = end
    return data, orientation


def _check_frame(marker: int, body: bytes) -> None:
    if (name := _OTHER_FRAMES.get(marker)) is not None:
        raise ImageError("unsupported", f"{name}, which is not read here")
    if body and body[0] != 8:
        raise ImageError("unsupported", f"a JPEG file with samples of {body[0]} bits, where 8 are read")


def _tells_colours(marker: int, body: bytes) -> bool:
    """Whether libjpeg takes the segment into account."""
    if marker == _JFIF:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    return marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12
