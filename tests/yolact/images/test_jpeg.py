"""JPEG: kinds of coding, colour conventions, and segments that are odd or broken."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.hostile_images import ycck_jpeg

from yolact.images.decode import ImageError, decode_image
from yolact.images.jpeg import without_side_segments

#: by `cjpeg -arithmetic -quality 90` of libjpeg-turbo, from the pixels of `sample_pixels`
ARITHMETIC = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIU
FRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAQABgDASIAAhEB
AxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AOfgzh4HWx64PeOQ7m2AqDVof7UWBLJmEqH7uI9ig48iFRFfyVMny6wBD5t+wImHejKqnfqSwItY
H46srU2oC4Qg/9k=
"""
#: by `imagecodecs.jpeg8_encode(…, lossless=True)`, from the pixels of `sample_pixels`
LOSSLESS = """
/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgAEAAYA1IRAEcRAEIRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAAECAb/2gAMA1IARwBCAAEAAM/5/wCZqKioqKioqK
ioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKhe
qKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqK
ioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKio
qKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqKioqKioqKioqKioqKioqKioqKioqKheqK
ioqKioqKioqKioqKioqKioqKioqKj/2Q==
"""


def sample_pixels() -> np.ndarray:
    y, x = np.mgrid[0:16, 0:24]
    return np.stack([x * 10, y * 15, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, "JPEG", **({"quality": 95, "subsampling": 0} | options))
    return stream.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + segment(marker, body) + data[2:]


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def refused(data: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"JFIF",
        b"JFIF\0",
        b"Adobe",
        b"Adobe\0d",
        b"Exif\0\0",
        b"Exif\0\0MM",
        b"MPF\0",
        b"ICC_PROFILE\0",
        b"Photoshop 3.0\x00",
        b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\1",
        b"FPXR\0",
        b"http://ns.adobe.com/xap/1.0/\x00",
    ],
    ids=ascii,
)
def test_short_and_broken_segments_cost_no_pixels(marker, body):
    plain = encoded(sample_pixels())
    assert np.array_equal(decode_image(with_segment(plain, marker, body)), decode_image(plain))


def test_ordinary_files_are_given_to_the_decoder_as_they_are():
    plain = encoded(sample_pixels())
    assert without_side_segments(plain) == (plain, 1)
    assert without_side_segments(plain)[0] is plain
    assert without_side_segments(with_segment(plain, 0xE1, exif(6))) == (plain, 6)


def test_padding_and_stray_bytes_between_segments():
    plain = encoded(sample_pixels())
    behind_the_first = 4 + int.from_bytes(plain[4:6], "big")
    for stray in (b"\xff", b"\xff\xff\xff", b"\x00\x12\x34", b"\xff\x01"):
        for more in (b"", segment(0xE0, b"JFIF")):
            data = plain[:behind_the_first] + stray + more + plain[behind_the_first:]
            assert np.array_equal(decode_image(data), decode_image(plain))


def test_orientation_is_taken_from_the_first_exif_segment_and_not_from_xmp():
    plain = encoded(sample_pixels())
    turned = np.rot90(decode_image(plain), -1)
    assert np.array_equal(decode_image(with_segment(plain, 0xE1, exif(6))), turned)
    both = with_segment(with_segment(plain, 0xE1, exif(3)), 0xE1, exif(6))
    assert np.array_equal(decode_image(both), turned)
    xmp = (
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf="
        b"'http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' "
        b"tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>"
    )
    assert np.array_equal(decode_image(with_segment(plain, 0xE1, xmp)), decode_image(plain))


@pytest.mark.parametrize("number_type", [1, 3, 4, 9])
@pytest.mark.parametrize("order", "<>")
def test_orientation_of_every_number_type(number_type, order):
    code = {1: "B", 3: "H", 4: "I", 9: "i"}[number_type]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, number_type, 1) + struct.pack(order + code, 8).ljust(4, b"\0")
    data = mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)
    plain = encoded(sample_pixels())
    turned = decode_image(with_segment(plain, 0xE1, b"Exif\0\0" + data))
    assert np.array_equal(turned, np.rot90(decode_image(plain)))


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_rows": 1}, {"keep_rgb": True}],
    ids=str,
)
def test_kinds_of_coding(options):
    assert np.abs(decode_image(encoded(sample_pixels(), **options)).astype(int) - sample_pixels()).max() <= 8


def test_arithmetic_coding_and_lossless():
    assert np.abs(decode_image(base64.b64decode(ARITHMETIC)).astype(int) - sample_pixels()).max() <= 9
    assert np.array_equal(decode_image(base64.b64decode(LOSSLESS)), sample_pixels())


def test_cmyk_with_and_without_the_marker_of_adobe():
    """Without it the numbers are inverted all the same, as libvips and OpenCV have it."""
    cmyk = Image.fromarray(sample_pixels()).convert("CMYK")
    marked = encoded(cmyk)
    assert np.abs(decode_image(marked).astype(int) - sample_pixels()).max() <= 12
    start = marked.index(b"Adobe") - 4
    unmarked = marked[:start] + marked[start + 2 + int.from_bytes(marked[start + 2 : start + 4], "big") :]
    assert np.array_equal(decode_image(unmarked), decode_image(marked))


def test_ycck():
    y, x = np.mgrid[0:32, 0:48]
    smooth = np.stack([x * 5, y * 7, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    assert np.abs(decode_image(ycck_jpeg(smooth)).astype(int) - smooth).max() <= 24


def test_several_images_in_one_file():
    stream = io.BytesIO()
    first = Image.fromarray(sample_pixels())
    first.save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (5, 5))], quality=95, subsampling=0)
    assert np.abs(decode_image(stream.getvalue()).astype(int) - sample_pixels()).max() <= 8


@pytest.mark.parametrize(
    ("marker", "bits", "name"),
    [
        (0xC0, 12, "12 bits"),
        (0xC1, 12, "12 bits"),
        (0xC5, 8, "hierarchical"),
        (0xCB, 8, "lossless"),
        (0xCD, 8, "hierarchical"),
        (0xF7, 8, "JPEG-LS"),
    ],
)
def test_other_kinds_are_named(marker, bits, name):
    data = bytearray(encoded(sample_pixels()))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, bits
    status, reason = refused(bytes(data))
    assert status == "unsupported"
    assert name in reason
