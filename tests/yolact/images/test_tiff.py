"""TIFF: every arrangement of samples gives the colours that libvips, OpenCV and tifffile give.

The expected values were settled with those three once; here they stand as formulas, so that the tests need none.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.image_files import tiff

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
