"""Reads the orientation of an image from its EXIF data. Nothing else in EXIF data changes pixels.

XMP data may state an orientation too, but browsers, annotation tools and other image libraries ignore it, so
annotations are made without it.
"""

from __future__ import annotations

import struct

import numpy as np

_ORIENTATION = 0x0112
#: struct codes of the number types that writers use for the orientation, by EXIF type number
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def orientation_of(exif: bytes) -> int:
    """The orientation that EXIF data states.

    Args:
        exif: a TIFF header and its first directory, with or without "Exif" and two zero bytes before it.

    Returns:
        1 to 8, as EXIF numbers them; 1 (upright) where the data is broken or states none.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, start + 4)
        (count,) = struct.unpack_from(order + "H", exif, start + directory)
        for place in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
            tag, number_type, values = struct.unpack_from(order + "HHI", exif, place)
            if tag == _ORIENTATION and number_type in _NUMBERS and values:
                (value,) = struct.unpack_from(order + _NUMBERS[number_type], exif, place + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the data ends early
        pass
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image, so that it shows as it was taken.

    Args:
        pixels: (height, width, channels), any dtype.
        orientation: 1 to 8, as EXIF numbers them.

    Returns:
        The same values as a view of `pixels`; height and width are exchanged for orientations 5 to 8.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):  # the rows stand in reverse
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):  # so do the columns
        pixels = pixels[:, ::-1]
    return pixels
