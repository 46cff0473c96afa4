"""Headers agree with the decoder, from the first bytes of a file alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from yolact.images.decode import decode_image
from yolact.images.header import HEAD_BYTES, TAIL_BYTES, ends_well, read_header

ORIENTATION = 0x0112


def encoded(kind, orientation=1, height=300, width=400, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"exif": exif} if orientation > 1 else {}), **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_upright_size_is_the_decoders(kind, orientation):
    data = encoded(kind, orientation)
    header = read_header(data[:HEAD_BYTES])
    if header is None:  # TIFF's tags and WebP's EXIF data may stand behind the pixels
        assert kind in ("TIFF", "WEBP")
        header = read_header(data)
    assert header.orientation == orientation
    assert header.upright_size == decode_image(data).shape[:2]
    assert (header.height, header.width) == (300, 400)
    assert ends_well(header, data[-TAIL_BYTES:], len(data))


@pytest.mark.compute
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_first_bytes_are_enough_and_pixels_are_not_decoded(kind):
    data = encoded(kind, height=900, width=700)
    assert len(data) > HEAD_BYTES
    header = read_header(data[:HEAD_BYTES])
    assert (header.kind, header.upright_size) == (kind, (900, 700))
    assert ends_well(header, data[-TAIL_BYTES:], len(data))
    cut = data[: len(data) * 2 // 3]
    assert not ends_well(header, cut[-TAIL_BYTES:], len(cut))


def test_damaged_exif_data_is_passed_over_as_the_decoder_does():
    data = encoded("JPEG", 6).replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert read_header(data).upright_size == decode_image(data).shape[:2] == (300, 400)


@pytest.mark.parametrize(
    "data", [b"", b"GIF", b"BM", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(30), b"RIFF....WEBPVP8X"]
)
def test_what_is_no_header_is_none(data):
    assert read_header(data) is None
