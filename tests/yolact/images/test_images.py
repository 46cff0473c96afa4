"""Decoding: every accepted kind of file gives the pixels it should, and everything else one short reason."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from yolact.images.decode import IMAGE_STATUSES, ImageError, decode_image
from yolact.images.values import stretch

HEIGHT, WIDTH = 24, 40


def sample_pixels() -> np.ndarray:
    """Smooth, so that lossy formats come close; its corners differ, so that a wrong turn shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 6, y * 10, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def encoded(image, kind, **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def assert_rejected(data, status, reason, **limits):
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data, **limits)
    assert caught.value.status == status
    assert status in IMAGE_STATUSES
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 16),
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 6),
        ("GIF", {}, 26),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 6),
    ],
)
def test_rgb_in_every_format(kind, options, tolerance):
    pixels = decode_image(encoded(sample_pixels(), kind, **options))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.abs(pixels.astype(int) - sample_pixels()).max() <= tolerance


def test_jpeg_is_what_pillow_gives():
    data = encoded(sample_pixels(), "JPEG", quality=70)
    assert np.array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8], upright[:8, 24:], upright[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
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
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.get(kind, {})
    variants = [lossless, {"compression": "tiff_lzw"}] if kind == "TIFF" else [lossless]
    for options in variants:
        pixels = decode_image(encoded(np.ascontiguousarray(stored), kind, exif=exif, **options))
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).max() <= (4 if kind in ("JPEG", "AVIF") else 0)


@pytest.mark.parametrize("junk", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + b"\xff" * 300])
def test_broken_exif_is_passed_over(junk):
    plain = encoded(sample_pixels(), "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + plain[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode_image(data), decode_image(plain))


def test_mutated_exif_never_costs_the_pixels():
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A], exif[0x0128] = 6, "maker", 72.0, 2
    data = bytearray(encoded(sample_pixels(), "JPEG", exif=exif))
    start = data.index(b"Exif\0\0") + 6
    end = start + struct.unpack(">H", data[start - 8 : start - 6])[0] - 8
    for _ in range(300):
        mutant = bytearray(data)
        for place in random.integers(start, end, 4):
            mutant[place] = random.integers(256)
        pixels = decode_image(bytes(mutant))
        assert sorted(pixels.shape) == [3, HEIGHT, WIDTH]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP", "WEBP"])
def test_greyscale_gives_three_equal_channels(kind):
    grey = sample_pixels()[..., 0]
    pixels = decode_image(encoded(grey, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert np.abs(pixels[..., 0].astype(int) - grey).max() <= (6 if kind == "JPEG" else 0)


def test_bilevel():
    bits = Image.fromarray(np.tile(np.array([[True, False]]), (4, 4)))
    assert decode_image(encoded(bits, "PNG"))[0].tolist() == [[255] * 3, [0] * 3] * 4


def test_transparent_pixels_are_laid_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [(10, 20, 30, 0), (0, 0, 0, 128), (10, 20, 30, 255)]
    expected = [[255, 255, 255], [127, 127, 127], [10, 20, 30]]
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert decode_image(encoded(rgba, kind, **options))[0].tolist() == expected
    grey_alpha = Image.fromarray(np.array([[[0, 0], [0, 128], [7, 255]]], np.uint8), "LA")
    assert decode_image(encoded(grey_alpha, "PNG"))[0].tolist() == [[255] * 3, [127] * 3, [7] * 3]


def test_palettes_with_and_without_transparency():
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([1, 2, 3, 40, 50, 60, 250, 251, 252])
    assert decode_image(encoded(palette, "PNG"))[0].tolist() == [[1, 2, 3], [40, 50, 60], [250, 251, 252]]
    assert decode_image(encoded(palette, "GIF"))[0].tolist() == [[1, 2, 3], [40, 50, 60], [250, 251, 252]]
    for kind, transparency in (("PNG", 1), ("GIF", 1), ("PNG", bytes([255, 0, 255]))):
        pixels = decode_image(encoded(palette, kind, transparency=transparency))
        assert pixels[0].tolist() == [[1, 2, 3], [255, 255, 255], [250, 251, 252]]


def test_transparent_colour_key():
    data = encoded(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), "PNG", transparency=(4, 5, 6))
    assert decode_image(data)[0].tolist() == [[1, 2, 3], [255, 255, 255]]


def test_sixteen_bit_samples_keep_their_high_byte():
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode_image(encoded(values, kind))[0, :, 0].tolist() == [0, 0, 1, 0x12, 255]
    rgb = np.repeat(values[..., None], 3, axis=-1)
    assert decode_image(_png(rgb))[0].tolist() == [[v] * 3 for v in (0, 0, 1, 0x12, 255)]


def _png(rgb16: np.ndarray) -> bytes:
    """16-bit RGB, which Pillow reads but does not write."""
    height, width = rgb16.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb16)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def test_float_tiff():
    values = np.array([[0.0, 0.25, 1.0, np.nan, np.inf]], np.float32)
    assert decode_image(encoded(values, "TIFF"))[0, :, 1].tolist() == [0, 64, 255, 0, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),
        (np.array([0.0, 17.4, 255.0], np.float32), [0, 17, 255]),
        (np.array([-1.0, 0.0, 1.0], np.float32), [0, 128, 255]),
        (np.array([1000.0, 3000.0], np.float32), [0, 255]),
        (np.array([7e30, 7e30], np.float32), [0, 0]),
        (np.array([0, 1, 255], np.int32), [0, 1, 255]),
        (np.array([-(2**31), 2**31 - 1], np.int32), [0, 255]),
        (np.array([np.nan, np.inf], np.float32), [0, 0]),
        (np.zeros((0, 3), np.float32), []),
    ],
)
def test_stretch(values, expected):
    assert stretch(values).tolist() == expected
    assert stretch(values).dtype == np.uint8


def test_cmyk_jpeg_looks_like_its_rgb_original():
    cmyk = Image.fromarray(sample_pixels()).convert("CMYK")
    pixels = decode_image(encoded(cmyk, "JPEG", quality=95, subsampling=0))
    assert np.abs(pixels.astype(int) - sample_pixels()).max() <= 12
    assert np.array_equal(decode_image(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


def test_icc_profiles_are_left_aside():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for kind in ("PNG", "JPEG", "TIFF"):
        data, plain = encoded(sample_pixels(), kind, icc_profile=profile), encoded(sample_pixels(), kind)
        assert np.array_equal(decode_image(data), decode_image(plain))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decode_image(data), np.full((4, 8, 3), (255, 0, 0)))


def test_what_the_first_frame_of_a_gif_does_not_cover_is_white():
    palette = bytes([255, 0, 0, 0, 0, 255])  # red, and the blue of the background
    small = Image.new("P", (4, 3))
    small.putpalette(palette)
    data = bytearray(encoded(small, "GIF"))
    data[6:10] = struct.pack("<HH", 8, 6)  # the canvas
    data[11] = 1  # the background
    frame = data.index(b",\0\0\0\0\x04\0\x03\0")
    data[frame + 1 : frame + 5] = struct.pack("<HH", 2, 1)
    expected = np.full((6, 8, 3), 255)
    expected[1:4, 2:6] = (255, 0, 0)
    assert np.array_equal(decode_image(bytes(data)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_cut_files_are_errors(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(noise, kind, **({"lossless": True} if kind == "WEBP" else {}))
    with pytest.raises(ImageError) as caught:
        decode_image(data[: int(len(data) * share)])
    assert caught.value.status in ("truncated", "undecodable")
    if share == 0.9 and kind != "TIFF":  # what a TIFF lacks is its directory, which stands at the end
        assert caught.value.status == "truncated"


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", "undecodable", "empty"),
        (b"\0" * 500, "undecodable", "zero bytes"),
        (b"<!DOCTYPE html><html>404</html>", "undecodable", "HTML"),
        (b"\n <HTML>", "undecodable", "HTML"),
        (b"Access denied", "undecodable", "text"),
        (b"PK\x03\x04" + b"\0" * 50, "undecodable", "zip"),
        (b"\x1f\x8b\x08" + b"\0" * 50, "undecodable", "gzip"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "undecodable", "PostScript"),
        (np.random.default_rng(5).bytes(1000), "undecodable", "no known kind"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "truncated", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "unsupported", "JPEG 2000"),
        (b"\xff\xd8\xff", "undecodable", "JPEG"),
        (b"\xff\xd8\xff\xe0 not a jpeg\n\r\0at all", "truncated", "JPEG"),
        (b"GIF89a", "undecodable", "GIF"),
        (b"II*\0", "truncated", "TIFF"),
    ],
)
def test_no_images(data, status, reason):
    assert_rejected(data, status, reason)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no such decoder that could be reached")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("JPEG2000", "JPEG 2000"),
        ("ICO", "icon"),
        ("ICNS", "icon"),
        ("PPM", "PPM"),
        ("EPS", "PostScript"),
        ("TGA", "TGA"),
        ("SGI", "SGI"),
        ("PCX", "PCX"),
        ("DDS", "DDS"),
        ("PDF", "PDF"),
        ("QOI", "QOI"),
    ],
)
def test_other_decoders_of_pillow_are_out_of_reach(kind, name):
    options = {"rle": True} if kind == "TGA" else {}
    with pytest.raises(ImageError, match=name):
        decode_image(encoded(np.tile(sample_pixels(), (2, 2, 1)), kind, **options))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_damage_of_any_sort_is_an_image_error_and_no_warning(kind):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {} if kind in ("GIF", "BMP") else {"exif": exif}
    data = encoded(sample_pixels(), kind, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(300):
            damaged = bytearray(data)
            for place in random.integers(0, len(data), 3):
                damaged[place] = random.integers(256)
            head = random.integers(12, min(len(data), 120))
            damaged[head] = random.choice([0, 1, 127, 255])
            with contextlib.suppress(ImageError):
                assert decode_image(bytes(damaged), max_pixels=1_000_000).shape[2] == 3


def test_limits():
    data = encoded(sample_pixels(), "PNG")
    assert decode_image(data, max_pixels=HEIGHT * WIDTH, max_bytes=len(data)).shape == (HEIGHT, WIDTH, 3)
    assert_rejected(data, "too_large", r"40 × 24 pixels, 959 allowed", max_pixels=HEIGHT * WIDTH - 1)
    assert_rejected(data, "too_large", "bytes", max_bytes=len(data) - 1)


def test_pillows_own_limit_neither_warns_nor_forbids(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("JPEG", "PNG", "BMP"):
            assert decode_image(encoded(sample_pixels(), kind)).shape == (HEIGHT, WIDTH, 3)


def test_decoding_in_threads_leaves_the_warning_filters_alone():
    files = [encoded(sample_pixels(), kind) for kind in ("JPEG", "TIFF", "GIF", "PNG")]
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode_image(data) for data in files * 10]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
