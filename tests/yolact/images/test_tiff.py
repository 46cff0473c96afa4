"""TIFF: every arrangement of samples gives the colours that libvips, OpenCV and tifffile give.

The expected values were settled with those three once; here they stand as formulas, so that the tests need none.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.image_files import tiff
from support.tiff_samples import BLACK_IS_ZERO, CMYK, PALETTE, RGB, WHITE_IS_ZERO, assert_pixels, samples

from yolact.images.decode import decode_image


def test_sixteen_bit_planes_keep_their_high_byte():
    values = (np.ones((60, 80, 3)) * [60000, 30000, 100]).astype("u2")
    for order in "<>":
        pixels = decode_image(tiff(values, photometric=RGB, planar=True, order=order))
        assert pixels[0, 0].tolist() == [234, 117, 0]
        assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("place", [{}, {"rows_per_strip": 5}, {"tile": (16, 32)}], ids=["one", "strips", "tiles"])
@pytest.mark.parametrize(
    "packing",
    [{}, {"compression": 8}, {"compression": 8, "predictor": 2}, {"compression": 32773}, {"fill_order": 2}],
    ids=["plain", "deflate", "predictor", "packbits", "reversed"],
)
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_rgb_in_every_order(order, planar, place, packing, kind):
    values = samples(3, 2 ** (8 * np.dtype(kind).itemsize) - 1, kind)
    data = tiff(values, photometric=RGB, order=order, planar=planar, **place, **packing)
    assert_pixels(data, values if kind == "u1" else values >> 8)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_cmyk(planar, kind):
    values = samples(4, 2 ** (8 * np.dtype(kind).itemsize) - 1, kind)
    eight_bit = values if kind == "u1" else (values >> 8).astype("u1")
    ink, black = eight_bit[..., :3].astype(float), eight_bit[..., 3:].astype(float)
    assert_pixels(tiff(values, photometric=CMYK, planar=planar), (255 - ink) * (255 - black) / 255, tolerance=1)


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
def test_white_is_zero(kind):
    largest = {"u1": 255, "u2": 65535, "i2": 32767, "f4": 1}[kind]
    values = samples(1, 1000, "f8") / 1000 * largest
    values = values.astype(kind)
    for order in "<>":
        white, black = (
            decode_image(tiff(values, photometric=photometric, order=order)).astype(int) for photometric in (0, 1)
        )
        assert np.array_equal(white, 255 - black)
        assert black.max() == (127 if kind == "i2" else 255)


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("place", [{}, {"tile": (16, 16)}, {"compression": 8}, {"fill_order": 2}])
def test_few_bits(bits, photometric, place):
    values = samples(1, 2**bits - 1, "u1")
    expected = np.rint(values * 255.0 / (2**bits - 1))
    data = tiff(values, photometric=photometric, packed_bits=bits, **place)
    assert_pixels(data, 255 - expected if photometric == WHITE_IS_ZERO else expected)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("number", [1, 3])
def test_packed_bits_are_the_depth(bits, number):
    values = samples(number, 2**bits - 1) // 2  # dark, and yet no brighter for it
    data = tiff(values, photometric=RGB if number == 3 else BLACK_IS_ZERO, packed_bits=bits)
    assert_pixels(data, values >> (bits - 8))


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4"])
@pytest.mark.parametrize(
    ("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16383, 14), (20000, 16)]
)
def test_the_depth_of_a_camera_is_told_by_the_largest_value(kind, largest, bits):
    for number, photometric in ((1, BLACK_IS_ZERO), (3, RGB)):
        values = samples(number, largest, kind)
        assert_pixels(tiff(values, photometric=photometric), values >> (bits - 8))


def test_integers_below_zero_are_stretched():
    values = samples(1, 4000, "i2") - 1024
    expected = np.rint((values + 1024.0) / 4000 * 255)
    assert_pixels(tiff(values, photometric=BLACK_IS_ZERO), expected)
    small = (samples(1, 255, "i2") - 128).astype("i1")
    assert_pixels(tiff(small, photometric=BLACK_IS_ZERO), np.rint((small + 128.0) / 255 * 255))


@pytest.mark.parametrize("tags", [[(341, "H", [4095])], [(340, "H", [0]), (341, "H", [4095])], [(281, "H", [4095])]])
def test_a_declared_largest_value_is_believed(tags):
    values = samples(1, 900)
    assert_pixels(tiff(values, photometric=BLACK_IS_ZERO, tags=tags), values >> 4)


def test_a_declared_range_of_all_bits_keeps_dark_images_dark():
    values = samples(1, 900)
    assert_pixels(tiff(values, photometric=BLACK_IS_ZERO, tags=[(341, "H", [65535])]), values >> 8)


def test_a_declared_range_that_does_not_hold_is_ignored():
    values = samples(1, 60000)
    assert_pixels(tiff(values, photometric=BLACK_IS_ZERO, tags=[(341, "H", [4095])]), values >> 8)


def test_declared_ranges_of_floats_and_negative_values():
    values = samples(1, 1000, "f4") - 200
    tags = [(340, "f", [-1000.0]), (341, "f", [1000.0])]
    assert_pixels(tiff(values, photometric=BLACK_IS_ZERO, tags=tags), np.rint((values + 1000.0) / 2000 * 255))
    whole = values.astype("i2")
    tags = [(340, "h", [-1000]), (341, "h", [1000])]
    assert_pixels(tiff(whole, photometric=BLACK_IS_ZERO, tags=tags), np.rint((whole + 1000.0) / 2000 * 255))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("order", "<>")
def test_floats(kind, predictor, order):
    for number, photometric in ((1, BLACK_IS_ZERO), (3, RGB)):
        values = (samples(number, 1000, "f8") / 1000).astype(kind)
        for place in ({}, {"tile": (16, 16)}):
            data = tiff(values, photometric=photometric, order=order, predictor=predictor, compression=8, **place)
            assert_pixels(data, np.rint(values.astype(float) * 255), tolerance=0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1, 257], ids=["8-bit", "16-bit"])
def test_palettes(bits, scale):
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    values = samples(1, 2**bits - 1, "u1")
    tag = (320, "H", (colours.T.reshape(-1) * scale).tolist())
    data = tiff(values, photometric=PALETTE, packed_bits=None if bits == 8 else bits, tags=[tag])
    assert_pixels(data, colours[values[..., 0]])


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("planar", [False, True])
def test_alpha_is_laid_over_white_and_other_samples_are_ignored(kind, planar):
    largest = 2 ** (8 * np.dtype(kind).itemsize) - 1
    values = samples(4, largest, kind)
    shift = 8 * np.dtype(kind).itemsize - 8
    as_8 = (values >> shift).astype(float)
    alpha = as_8[..., 3:] / 255
    over = as_8[..., :3] * alpha + 255 * (1 - alpha)
    assert_pixels(tiff(values, photometric=RGB, planar=planar, tags=[(338, "H", [2])]), over, 1)
    assert_pixels(tiff(values, photometric=RGB, planar=planar), over, 1)
    assert_pixels(tiff(values, photometric=RGB, planar=planar, tags=[(338, "H", [0])]), as_8[..., :3])
    premultiplied = np.minimum(values, values[..., 3:])
    as_8 = (premultiplied >> shift).astype(float)
    data = tiff(premultiplied, photometric=RGB, planar=planar, tags=[(338, "H", [1])])
    assert_pixels(data, as_8[..., :3] + 255 - as_8[..., 3:], 1)


def test_of_several_grey_samples_the_first_is_shown():
    values = samples(5, 255, "u1")
    for planar in (False, True):
        data = tiff(values, photometric=BLACK_IS_ZERO, planar=planar, tags=[(338, "H", [0] * 4)])
        assert_pixels(data, values[..., :1])
    grey_alpha = tiff(values[..., :2], photometric=BLACK_IS_ZERO, tags=[(338, "H", [2])])
    alpha = values[..., 1:2] / 255
    assert_pixels(grey_alpha, values[..., :1] * alpha + 255 * (1 - alpha), 1)


def test_big_tiff_and_a_missing_photometric_tag():
    values = samples(3, 255, "u1")
    for order in "<>":
        assert_pixels(tiff(values, photometric=RGB, order=order, big=True, rows_per_strip=4), values)
    assert_pixels(tiff(values, photometric=None), values)
    assert_pixels(tiff(values[..., :1], photometric=None), values[..., :1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    upright = np.zeros((16, 32, 3), "u2")
    upright[:8, :8], upright[:8, 24:], upright[8:, :8] = (65535, 0, 0), (0, 65535, 0), (0, 0, 65535)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    assert_pixels(tiff(stored, photometric=RGB, tags=[(274, "H", [orientation])]), upright >> 8)
    assert_pixels(tiff((stored >> 8).astype("u1"), photometric=RGB, tags=[(274, "H", [orientation])]), upright >> 8)
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(stored >> 8).astype("u1"))
    image.save(stream, "TIFF", compression="jpeg", quality=100, tiffinfo={274: orientation})
    assert_pixels(stream.getvalue(), upright >> 8, 80)  # colours are stored less finely


@pytest.mark.parametrize("compression", [None, "jpeg", "tiff_lzw"])
def test_orientation_in_xmp_is_not_followed(compression):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    stream = io.BytesIO()
    Image.new("RGB", (32, 16)).save(stream, "TIFF", compression=compression, tiffinfo={700: xmp})
    assert decode_image(stream.getvalue()).shape == (16, 32, 3)
