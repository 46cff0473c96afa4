"""PNG: every kind of pixels, and files whose other chunks are large, damaged or odd."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image
from support.image_files import png, png_chunk, with_png_chunk

from yolact.images.decode import ImageError, decode_image

HEIGHT, WIDTH = 13, 21
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def samples(channels: int, largest: int = 65535) -> np.ndarray:
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    values = np.rint(((x * 37 + y * 91 + c * 57) % 101) / 100 * largest).astype(np.uint16)
    values[0, 0] = largest
    return values


def plain() -> bytes:
    return png(samples(3, 255), depth=8, colour=RGB)


def refused(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return caught.value


def assert_pixels(data: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    if expected.shape[2] == 1:
        expected = expected.repeat(3, axis=2)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey(depth, interlaced):
    values = samples(1, 2**depth - 1)
    expected = values >> 8 if depth == 16 else values * 255 // (2**depth - 1)
    assert_pixels(png(values, depth=depth, colour=GREY, interlaced=interlaced), expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("colour", "channels"), [(RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_colours_and_alpha(colour, channels, depth, interlaced):
    values = samples(channels, 2**depth - 1)
    as_8 = (values >> (depth - 8)).astype(float)
    if colour != RGB:
        alpha = as_8[..., -1:] / 255
        as_8 = as_8[..., :-1] * alpha + 255 * (1 - alpha)
    assert_pixels(png(values, depth=depth, colour=colour, interlaced=interlaced), as_8, 0 if colour == RGB else 1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_with_transparent_entries(depth):
    colours = np.random.default_rng(depth).integers(0, 255, (2**depth, 3), np.uint8)
    values = samples(1, 2**depth - 1)
    palette = (b"PLTE", colours.tobytes())
    assert_pixels(png(values, depth=depth, colour=PALETTE, before=[palette]), colours[values[..., 0]])
    data = png(values, depth=depth, colour=PALETTE, before=[palette, (b"tRNS", bytes([255, 0]))])
    colours[1] = 255
    assert_pixels(data, colours[values[..., 0]])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_value_becomes_white(depth):
    values = samples(1, 2**depth - 1)
    key = int(values[1, 1, 0])
    shown = values >> 8 if depth == 16 else values * 255 // (2**depth - 1)
    data = png(values, depth=depth, colour=GREY, before=[(b"tRNS", key.to_bytes(2, "big"))])
    assert_pixels(data, np.where(values == key, 255, shown))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_becomes_white(depth):
    values = samples(3, 2**depth - 1)
    key = values[1, 1].copy()
    near = values[2, 2] = key.copy()
    near[0] ^= 1  # another colour, though its high byte is the same
    values[2, 2] = near
    data = png(values, depth=depth, colour=RGB, before=[(b"tRNS", key.astype(">u2").tobytes())])
    transparent = (values == key).all(axis=2, keepdims=True)
    assert transparent.any()
    assert_pixels(data, np.where(transparent, 255, values >> (depth - 8)))


@pytest.mark.parametrize(("colour", "channels"), [(GREY, 1), (RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (1023, 10), (4095, 12), (16383, 14), (16384, 16), (65535, 16)])
def test_the_depth_of_a_camera_is_told_by_the_largest_value(colour, channels, largest, bits):
    values = samples(channels, largest)
    if colour in (GREY_ALPHA, RGB_ALPHA):
        values[..., -1] = 65535
        assert_pixels(png(values, depth=16, colour=colour), values[..., :-1] >> (bits - 8))
        if bits >= 10:
            values[..., -1] = 2**bits - 1  # opaque, as such writers say it
    colours = values if colour in (GREY, RGB) else values[..., :-1]
    assert_pixels(png(values, depth=16, colour=colour), colours >> (bits - 8))


def test_declared_significant_bits():
    dark = samples(1, 900)
    assert_pixels(png(dark, depth=16, colour=GREY, before=[(b"sBIT", b"\x0c")]), dark >> 4)
    assert_pixels(png(dark, depth=16, colour=GREY, before=[(b"sBIT", b"\x10")]), dark >> 8)
    scaled_by_the_rules = samples(3, 65520)
    data = png(scaled_by_the_rules, depth=16, colour=RGB, before=[(b"sBIT", b"\x0c\x0c\x0c")])
    assert_pixels(data, scaled_by_the_rules >> 8)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(3 << 20))),
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 << 20))),
        png_chunk(b"iCCP", b"profile\0\0no zlib data"),
        png_chunk(b"iCCP", b""),
        png_chunk(b"tEXt", b"Comment\0text", damaged=True),
        png_chunk(b"gAMA", b"\0\0\xb1\x8f", damaged=True),
        png_chunk(b"pHYs", b"\0\0\x0b\x13\0\0\x0b\x13\1", damaged=True),
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"x"), damaged=True),
        png_chunk(b"tRNS", bytes(6), damaged=True),
        png_chunk(b"eXIf", b"MM\0*\0\0", damaged=True),
        png_chunk(b"sRGB", b""),
        png_chunk(b"gAMA", b"\0"),
        png_chunk(b"cHRM", b"\0"),
        png_chunk(b"pHYs", b""),
        png_chunk(b"tIME", b""),
        png_chunk(b"acTL", b""),
        png_chunk(b"fcTL", b"\0"),
        png_chunk(b"tRNS", b""),
        png_chunk(b"tRNS", b"\0\1"),
        png_chunk(b"sBIT", b""),
        png_chunk(b"bKGD", b""),
        png_chunk(b"PLTE", bytes(7)),
        png_chunk(b"cICP", b""),
        png_chunk(b"prVt", b"private"),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_side_chunks_cost_no_pixels(chunk, before):
    assert np.array_equal(decode_image(with_png_chunk(plain(), chunk, before)), decode_image(plain()))


def test_pixel_data_in_many_chunks_and_bytes_behind_the_end():
    data = plain()
    start = data.index(b"IDAT") - 4
    body = data[start + 8 : start + 8 + int.from_bytes(data[start : start + 4], "big")]
    pieces = b"".join(png_chunk(b"IDAT", body[place : place + 7]) for place in range(0, len(body), 7))
    many = data[:start] + pieces + png_chunk(b"IDAT", b"") + data[start + 12 + len(body) :]
    assert np.array_equal(decode_image(many), decode_image(data))
    assert np.array_equal(decode_image(data + b"<script>" * 99), decode_image(data))
    assert np.array_equal(decode_image(data[: data.index(b"IEND") - 4]), decode_image(data))


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"PLTE"])
def test_damage_of_what_pixels_depend_on_is_told(name):
    colours = (b"PLTE", bytes(range(255)) * 3)
    data = bytearray(png(samples(1, 255), depth=8, colour=PALETTE, before=[colours]))
    data[data.index(name) + 9] ^= 1
    error = refused(bytes(data))
    assert error.status == "undecodable"
    assert f"checksum of the chunk {name.decode()}" in error.reason


def test_what_is_missing_is_told():
    data = plain()
    assert refused(data[: data.index(b"IDAT") + 20]).status == "truncated"
    assert refused(data[: data.index(b"IDAT") - 4]).status == "truncated"
    assert "palette" in refused(png(samples(1, 255), depth=8, colour=PALETTE)).reason
    assert "valid kind" in refused(png(samples(1, 255), depth=8, colour=5)).reason
    assert "valid kind" in refused(png(samples(1, 15), depth=4, colour=RGB)).reason


def test_files_of_other_rules_are_named():
    data = plain()
    apple = with_png_chunk(data, png_chunk(b"CgBI", bytes(4)), b"IHDR")
    assert refused(apple).status == "unsupported"
    assert "Apple" in refused(apple).reason
    unknown = refused(with_png_chunk(data, png_chunk(b"ABCD", b"")))
    assert (unknown.status, "ABCD" in unknown.reason) == ("unsupported", True)


def test_orientation_is_taken_from_exif_and_not_from_xmp():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = with_png_chunk(plain(), png_chunk(b"eXIf", exif.tobytes()[6:]))
    assert np.array_equal(decode_image(turned), np.rot90(decode_image(plain()), -1))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    said_in_xmp = with_png_chunk(plain(), png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    assert np.array_equal(decode_image(said_in_xmp), decode_image(plain()))
