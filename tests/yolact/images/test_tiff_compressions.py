"""TIFF: what libtiff undoes, what is refused by name, and files that end too early or hold too much."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.image_files import tiff
from support.tiff_samples import (
    BLACK_IS_ZERO,
    HEIGHT,
    RGB,
    WHITE_IS_ZERO,
    WIDTH,
    YCBCR,
    assert_pixels,
    assert_refused,
    samples,
)

from yolact.images.decode import decode_image


@pytest.mark.parametrize("compression", ["tiff_lzw", "lzma", "zstd", "packbits", "tiff_deflate"])
def test_compressions_that_libtiff_undoes(compression):
    for values in (samples(3, 255, "u1"), samples(1, 65535)[..., 0]):
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "TIFF", compression=compression)
        expected = values if values.ndim == 3 else (values >> 8)[..., None]
        assert_pixels(stream.getvalue(), expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", None])
def test_pillows_own_limit_does_not_count_bytes_of_samples(compression, monkeypatch):
    stream = io.BytesIO()
    Image.fromarray(samples(3, 255, "u1")).save(stream, "TIFF", compression=compression)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    assert decode_image(stream.getvalue()).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_inside(mode):
    y, x = np.mgrid[0:64, 0:96]
    image = Image.fromarray(np.stack([x * 2, y * 3, x + y], axis=-1).astype("u1")).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression="jpeg", quality=95)
    assert_pixels(stream.getvalue(), np.asarray(image.convert("RGB")), 12)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_fax_compressions(compression, photometric):
    bits = samples(1, 1, "u1")[..., 0].astype(bool)
    stream = io.BytesIO()
    Image.fromarray(bits).save(stream, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert_pixels(stream.getvalue(), bits[..., None] * np.uint8(255))


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("compression", [1, 8])
def test_ycbcr_with_colours_stored_less_finely(across, down, compression):
    height, width = 32, 48
    luma = np.arange(height * width).reshape(height, width) % 200 + 20
    cb, cr = np.full((height, width), 90), np.full((height, width), 170)
    blocks = luma.reshape(height // down, down, width // across, across).swapaxes(1, 2)
    blocks = blocks.reshape(height // down, width // across, -1)
    chroma = np.stack([cb[::down, ::across], cr[::down, ::across]], axis=-1)
    stored = np.concatenate([blocks, chroma], axis=2).astype("u1")
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [8, 8, 8]),
        (277, "H", [3]),
        (278, "I", [height]),
        (530, "H", [across, down]),
    ]
    data = tiff(stored, photometric=YCBCR, compression=compression, tags=tags)
    rgb = np.stack(
        [luma + 1.402 * (cr - 128), luma - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), luma + 1.772 * (cb - 128)],
        axis=-1,
    )
    assert_pixels(data, np.clip(np.rint(rgb), 0, 255), 2)


@pytest.mark.parametrize(
    ("compression", "name"),
    [
        (34712, "JPEG 2000"),
        (34887, "LERC"),
        (50001, "WebP"),
        (50002, "JPEG XL"),
        (32809, "ThunderScan"),
        (34676, "LogLuv"),
        (777, "777"),
    ],
)
def test_other_compressions_are_unsupported_by_name(compression, name):
    assert_refused(tiff(samples(3, 255, "u1"), photometric=RGB, compression=compression), "unsupported", name)


@pytest.mark.parametrize(
    ("photometric", "name"),
    [(8, r"L\*a\*b\*"), (9, r"L\*a\*b\*"), (32803, "raw"), (32845, "LogLuv"), (4, "mask"), (99, "99")],
)
def test_other_colours_are_unsupported_by_name(photometric, name):
    assert_refused(tiff(samples(3, 255, "u1"), photometric=photometric), "unsupported", name)


def test_other_samples_are_unsupported_by_name():
    values = samples(1, 255, "u1")
    complex_numbers = tiff(samples(1, 255, "u4"), photometric=1, tags=[(339, "H", [6])])
    assert_refused(complex_numbers, "unsupported", "complex")
    assert_refused(tiff(values, photometric=1, tags=[(258, "H", [24])]), "unsupported", "24 bits")
    assert_refused(tiff(samples(3), photometric=2, tags=[(258, "H", [5, 6, 5])]), "unsupported", "different sizes")
    assert_refused(tiff(samples(4), photometric=5, tags=[(332, "H", [2])]), "unsupported", "inks")
    assert_refused(tiff(values, photometric=1, tags=[(254, "I", [1])]), "unsupported", "small copy")
    assert_refused(b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "unsupported", "Canon CR2")


def test_ends_before_the_last_pixel():
    values = samples(3)
    for place in ({}, {"tile": (16, 16)}, {"compression": 8}):
        data = tiff(values, photometric=RGB, **place)
        tag = 324 if "tile" in place else 273
        count = len(range(0, HEIGHT, 16)) * len(range(0, WIDTH, 16)) if "tile" in place else 1
        moved = tiff(values, photometric=RGB, tags=[(tag, "I", [len(data) - 5] * count)], **place)
        assert_refused(moved, "truncated", "last pixel")
    assert_refused(data[:-300], "truncated", "ends")
    assert_refused(b"II*\0", "truncated", "directory")
    assert_refused(b"II+\0\x08\0\0\0", "truncated", "directory")


def test_the_bytes_of_samples_are_limited_too():
    data = tiff(np.zeros((100, 100, 200), "u2"), photometric=1, compression=8, tags=[(338, "H", [0] * 199)])
    decode_image(data)  # 4 MB, where limits of less than a megapixel do not count
    tall = [(257, "I", [40_000]), (278, "I", [100]), (273, "I", [8] * 400), (279, "I", [len(data) - 1000] * 400)]
    huge = tiff(np.zeros((100, 100, 200), "u2"), photometric=1, compression=8, tags=[(338, "H", [0] * 199), *tall])
    assert_refused(huge, "too_large", "bytes of samples", max_pixels=4_000_000)
