"""Decodes damaged copies of small image files; the arguments are a folder, a kind of image and a number of copies.

A process of its own: what must be found is a file that ends it by a signal.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from support.damage import fault, judge_copies, limit_memory
from support.image_files import bmp, png, png_chunk, tiff, with_png_chunk

from yolact.images.decode import IMAGE_STATUSES, ImageError, decode_image

#: bytes of address space above what the imports take
MEMORY = 2 << 30
MAX_PIXELS = 1_000_000
HEIGHT, WIDTH = 20, 24


def _samples(channels: int, kind: str = "u1") -> np.ndarray:
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    return ((x * 37 + y * 91 + c * 57) % 251).astype(kind)


def _saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(_samples(3))).save(stream, kind, **options)
    return stream.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif.tobytes()


def _jpegs() -> Iterator[bytes]:
    for options in ({}, {"progressive": True}, {"subsampling": 2, "restart_marker_rows": 1}, {"exif": _exif()}):
        yield _saved("JPEG", **options)
    yield _saved("JPEG", Image.fromarray(_samples(1)[..., 0]))
    yield _saved("JPEG", Image.fromarray(_samples(3)).convert("CMYK"))
    yield _saved("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


def _pngs() -> Iterator[bytes]:
    for depth, colour, channels in ((1, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (16, 6, 4)):
        values = (_samples(channels, "u2") * 257) >> (16 - depth)
        for interlaced in (False, True):
            yield png(values, depth=depth, colour=colour, interlaced=interlaced)
    chunks = [(b"PLTE", bytes(range(48))), (b"tRNS", b"\0\xff"), (b"eXIf", _exif()[6:])]
    yield png(_samples(1) % 16, depth=4, colour=3, before=chunks)
    yield png(_samples(1, "u2"), depth=16, colour=0, before=[(b"sBIT", b"\x0c"), (b"tRNS", b"\0\x05")])
    yield with_png_chunk(_saved("PNG"), png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(99))))
    yield _saved("PNG", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])


def _tiffs() -> Iterator[bytes]:
    rgb = _samples(3, "u2") * 257
    for order in "<>":
        yield tiff(rgb, photometric=2, order=order, planar=True, rows_per_strip=6)
        yield tiff(rgb, photometric=2, order=order, tile=(16, 16), compression=8, predictor=2, big=True)
        yield tiff(rgb.astype("f4"), photometric=2, order=order, compression=8, predictor=3)
    yield tiff(_samples(1), photometric=3, tags=[(320, "H", [5] * 768)])
    yield tiff(_samples(1, "u2"), photometric=0, packed_bits=12, fill_order=2, tags=[(341, "H", [4095])])
    yield tiff(_samples(4), photometric=5, compression=32773)
    yield tiff(_samples(4), photometric=2, tags=[(338, "H", [1]), (274, "H", [7])])
    yield tiff(_samples(3), photometric=6, tags=[(530, "H", [1, 1])])
    for compression in ("tiff_lzw", "jpeg", "packbits", "zstd", "lzma"):
        yield _saved("TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield _saved("TIFF", Image.fromarray(_samples(1)[..., 0] > 99), compression=compression)


def _bmps() -> Iterator[bytes]:
    rows = _samples(4).reshape(HEIGHT, -1)
    for header in (40, 108):
        yield bmp(
            rows, width=WIDTH, bits=32, compression=3, header_bytes=header, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        )
    yield bmp(rows[:, : WIDTH // 2], width=WIDTH, bits=4, palette=[(1, 2, 3)] * 16)
    yield bmp(rows[:, : WIDTH * 3], width=WIDTH, bits=24, header_bytes=12)
    runs = np.array([4, 7, 0, 4, 1, 2, 3, 4, 0, 0, 0, 2, 1, 0, 3, 1, 0, 1], np.uint8)
    for bits in (4, 8):
        yield bmp(runs, width=8, bits=bits, compression=3 - bits // 4, palette=[(9, 8, 7)] * 16, colours_used=HEIGHT)


def _gifs() -> Iterator[bytes]:
    yield _saved("GIF")
    frames = [Image.fromarray(np.roll(_samples(3), step, axis=0)) for step in range(3)]
    yield _saved("GIF", frames[0], save_all=True, append_images=frames[1:], transparency=3, interlace=1)


def _webps() -> Iterator[bytes]:
    yield _saved("WEBP")
    yield _saved("WEBP", lossless=True, exif=_exif())
    yield _saved("WEBP", Image.fromarray(_samples(4)))
    yield _saved("WEBP", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])


def _avifs() -> Iterator[bytes]:
    yield _saved("AVIF", exif=_exif())
    yield _saved("AVIF", Image.fromarray(_samples(4)))
    yield _saved("AVIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])


def _heics() -> Iterator[bytes]:
    import pillow_heif  # the extra `heif`; without it there is no such decoder to test

    for channels in (3, 4):
        stream = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(np.tile(_samples(channels), (4, 4, 1)))).save(stream)
        yield stream.getvalue()


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "JPEG": _jpegs,
    "PNG": _pngs,
    "TIFF": _tiffs,
    "BMP": _bmps,
    "GIF": _gifs,
    "WEBP": _webps,
    "AVIF": _avifs,
    "HEIC": _heics,
}


def damaged(random: np.random.Generator, seeds: list[bytes]) -> bytes:
    """A copy of one of the files with one to six faults; PNG's checksums are made to fit again in most of them."""
    data = bytearray(seeds[random.integers(len(seeds))])
    for _ in range(random.integers(1, 7)):
        if len(data) < 16:
            break
        # headers matter most: half of the faults are among the first bytes, TIFF's directory stands at the end
        places = (len(data), min(len(data), 200), min(len(data), 60))
        place = int(random.integers(places[random.integers(3)]))
        if random.integers(4) == 0:
            place = len(data) - 1 - place
        fault(random, data, place, seeds)
    if data[1:4] == b"PNG" and random.integers(4):
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


def judge(data: bytes) -> str:
    """ "ok" or the status of its error. Raises for whatever else happens."""
    try:
        pixels = decode_image(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        if error.status not in IMAGE_STATUSES or not error.reason.isprintable() or len(error.reason) >= 300:
            raise AssertionError(f"no short line for people: {error!r}") from error
        return error.status
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    assert pixels.flags.writeable
    return "ok"


def main(folder: Path, kind: str, number: int, first: int) -> None:
    warnings.simplefilter("error")
    seeds = list(SEEDS[kind]())
    for data in seeds:
        assert judge(data) == "ok", kind
    limit_memory(MEMORY)
    random = np.random.default_rng(first)
    judge_copies(folder, range(number), lambda _: damaged(random, seeds), judge)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
