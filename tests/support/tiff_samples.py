"""Samples for TIFF files, and checks of what is decoded from a file: these pixels, or this refusal."""

from __future__ import annotations

import numpy as np
import pytest

from yolact.images.decode import ImageError, decode_image

HEIGHT, WIDTH = 37, 45
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6


def samples(number: int = 3, largest: int = 65535, kind: str = "u2") -> np.ndarray:
    """Different in every channel, column and row; the largest value occurs."""
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:number]
    values = ((x * 37 + y * 91 + c * 57 + x * y * 3) % 1009) / 1008
    values[0, 0] = 1
    return np.rint(values * largest).astype(kind)


def assert_pixels(data: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    if expected.shape[2] == 1:
        expected = expected.repeat(3, axis=2)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def assert_refused(data: bytes, status: str, reason: str, **limits: int) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data, **limits)
    assert caught.value.status == status
