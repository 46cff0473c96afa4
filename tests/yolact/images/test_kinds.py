"""What a file is by its first bytes, and the kinds of the HEIF family."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from support.image_files import png_chunk, with_png_chunk

from yolact.images import decode
from yolact.images.decode import ImageError, decode_image
from yolact.images.header import stored_orientation
from yolact.images.kinds import describe_no_image, image_kind, other_image_kind


def sample_pixels() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 3, y * 5, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def brands(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (brands(b"avif", b"mif1"), "AVIF"),
        (brands(b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
        (brands(b"avis", b"msf1"), "AVIF"),
        (brands(b"heic", b"mif1", b"heic"), "HEIC"),
        (brands(b"mif1", b"heix"), "HEIC"),
        (brands(b"mif1"), None),
        (brands(b"isom", b"mp42"), None),
    ],
)
def test_brands_of_the_heif_family(data, kind):
    assert image_kind(data) == kind


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (brands(b"mif1"), "a HEIF image that is neither HEIC nor AVIF"),
        (brands(b"crx ", b"isom"), "Canon CR3"),
        (brands(b"jxl "), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (b"II\xbc\x01\0", "JPEG XR"),
        (b"P1\n3 3\n", "PBM"),
        (b"P2 3 3\n", "PGM"),
        (b"P3\r\n3 3\n", "PPM"),
        (b"P4\t3 3\n", "PBM"),
        (b"P5\n3 3\n", "PGM"),
        (b"P6\n3 3\n", "PPM"),
        (b"P7\nWIDTH 3\n", "PAM"),
        (b"PF\n3 3\n", "PFM"),
        (b"qoif\0\0\0\1", "QOI"),
        (b"8BPS\0\1", "Photoshop"),
        (b"DDS |\0\0\0", "DDS"),
        (b"\0\0\1\0\1\0", "icon"),
        (b"\0\0\2\0\1\0", "pointer"),
        (bytes(50) + b"TRUEVISION-XFILE.\0", "TGA"),
        (struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 5, 4, 24, 32) + bytes(60), "TGA"),
        (struct.pack("<BBBHHBHHHHBB", 0, 1, 9, 0, 256, 24, 0, 0, 5, 4, 8, 0) + bytes(800), "TGA"),
        (b"BLP2\1\0\0\0", "BLP"),
        (b"\x0a\5\1\x08" + bytes(200), "PCX"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "HDR"),
        (b"SIMPLE  =   T", "FITS"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"IIU\0\x18\0\0\0", "Panasonic"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm"),
    ],
)
def test_images_that_are_not_read_are_named(data, name):
    assert image_kind(data) is None
    assert name in (other_image_kind(data) or "")
    with pytest.raises(ImageError, match="the file is a") as caught:
        decode_image(data)
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (brands(b"isom", b"mp42"), "video"),
        (b"\x1a\x45\xdf\xa3" + bytes(20), "video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"BZh91AY", "bzip2"),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (b"\xef\xbb\xbf<svg xmlns=", "SVG"),
        (b"P6 is how this text begins", "text"),
        (b"P", "text"),
    ],
)
def test_what_is_no_image_is_named(data, name):
    if data[:2] != b"P6":
        assert other_image_kind(data) is None
    assert name in describe_no_image(data)


def test_every_short_beginning_is_told_without_an_error():
    png, webp = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8X"
    for start in (brands(b"avif"), png, webp, b"BM", b"GIF89a", b"MM\0+"):
        for length in range(1, len(start)):
            with pytest.raises(ImageError):
                decode_image(start[:length])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_avif_with_alpha_and_of_several_frames():
    first, second = Image.fromarray(sample_pixels()), Image.new("RGB", (64, 48), "red")
    data = encoded(first, "AVIF", quality=95, subsampling="4:4:4", save_all=True, append_images=[second])
    assert np.abs(decode_image(data).astype(int) - sample_pixels()).max() <= 8
    transparent = first.copy()
    transparent.putalpha(0)
    assert (decode_image(encoded(transparent, "AVIF")) == 255).all()


def test_the_size_of_an_avif_is_checked_on_its_header():
    data = encoded(Image.fromarray(sample_pixels()), "AVIF")
    with pytest.raises(ImageError, match="64 × 48 pixels, 3071 allowed") as caught:
        decode_image(data, max_pixels=64 * 48 - 1)
    assert caught.value.status == "too_large"


def heic(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heif` is not installed")
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()


def test_heic():
    data = heic(Image.fromarray(sample_pixels()), quality=95, chroma=444)
    assert image_kind(data) == "HEIC"
    pixels = decode_image(data)
    assert pixels.flags.writeable
    assert np.abs(pixels.astype(int) - sample_pixels()).max() <= 8
    with pytest.raises(ImageError, match="64 × 48 pixels, 100 allowed"):
        decode_image(data, max_pixels=100)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright(orientation):
    """HEIC files turn by a property of the container; EXIF data beside it says the same and counts once."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(sample_pixels())
    stored = image if orientation == 1 else image.transpose(_UNDO[orientation])
    pixels = decode_image(heic(stored, quality=95, chroma=444, exif=exif.tobytes()))
    assert pixels.shape == sample_pixels().shape
    assert np.abs(pixels.astype(int) - sample_pixels()).max() <= 8


_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_heic_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode._heif_library.cache_clear()
    try:
        with pytest.raises(ImageError, match="extra `heif`") as caught:
            decode_image(brands(b"heic", b"mif1"))
    finally:
        decode._heif_library.cache_clear()
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_that_is_stored_is_the_one_that_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(sample_pixels())
    assert stored_orientation(encoded(image, kind, exif=exif)) == 6
    assert stored_orientation(encoded(image, kind)) == 1
    assert stored_orientation(b"no image") is None
    if kind == "PNG":
        behind_the_pixels = with_png_chunk(encoded(image, kind), png_chunk(b"eXIf", exif.tobytes()[6:]), b"IEND")
        assert stored_orientation(behind_the_pixels) == 6
        assert decode_image(behind_the_pixels).shape == (64, 48, 3)
    if kind == "JPEG":
        data = encoded(image, kind, xmp=b"<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>")
        assert stored_orientation(data) == 1
        assert decode_image(data).shape == (48, 64, 3)
