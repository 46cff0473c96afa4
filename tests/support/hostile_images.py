"""Makes hostile and odd image files, small on disk, each with the status that the label job must give it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

OK = "ok"
HUGE_BYTES = 500 << 20


@dataclass(frozen=True)
class HostileFile:
    """`status` is what its row must say under the default limits; `size` is the length of a sparse file."""

    name: str
    data: bytes = field(repr=False)
    status: str
    size: int | None = None


@dataclass(frozen=True)
class HostileShard:
    """`rows` are the rows that it must give, in order: (what follows the shard's URI in the id, status)."""

    name: str
    data: bytes = field(repr=False)
    rows: tuple[tuple[str, str], ...]


def photo(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """An image that differs for every seed, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin((x * (c + 1) + y * (seed % 7 + 1)) / 9 + seed) for c in range(3)], axis=-1)
    return ((waves + 1) * 127).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


@cache
def good_jpeg(seed: int = 0) -> bytes:
    return encoded(photo(seed), "JPEG", quality=90)


@cache
def hostile_files() -> tuple[HostileFile, ...]:
    """Single files, the sparse one last."""
    files = [*_no_images(), *_cut_and_corrupt(), *_bombs(), *_odd_sizes(), *_odd_pixels(), *_odd_metadata()]
    return (*files, HostileFile("huge.jpg", good_jpeg(), "too_large", HUGE_BYTES))


def _no_images() -> Iterator[HostileFile]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("inside.jpg"), good_jpeg())
    yield HostileFile("empty.jpg", b"", "undecodable")
    yield HostileFile("zeros.jpg", bytes(5000), "undecodable")
    yield HostileFile("text.png", b"this is not the image you are looking for\n", "undecodable")
    yield HostileFile("page.jpg", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "undecodable")
    yield HostileFile("error.webp", b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "undecodable")
    yield HostileFile("archive.jpg", archive.getvalue(), "undecodable")
    yield HostileFile("gzipped.jpg", gzip.compress(good_jpeg(), mtime=0), "undecodable")
    yield HostileFile("random.jpg", np.random.default_rng(1).bytes(20_000), "undecodable")
    yield HostileFile("drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "undecodable")
    yield HostileFile("phone.jpg", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200), "unsupported")


def _cut_and_corrupt() -> Iterator[HostileFile]:
    jpeg, png = good_jpeg(), encoded(photo(), "PNG")
    yield HostileFile("truncated.jpg", jpeg[: len(jpeg) // 2], "truncated")
    yield HostileFile("truncated.png", png[: len(png) // 2], "truncated")
    yield HostileFile("header-only.jpg", jpeg[:20], "undecodable")
    webp = encoded(photo(), "WEBP")
    yield HostileFile("truncated.webp", webp[: len(webp) // 2], "truncated")
    damaged = bytearray(png)
    damaged[png.index(b"IDAT") + 50] ^= 0xFF
    yield HostileFile("damaged.png", bytes(damaged), "undecodable")
    yield HostileFile("no-frame.gif", b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + b";", "undecodable")


def _bombs() -> Iterator[HostileFile]:
    """Small files whose headers ask for gigabytes."""
    side = 30_000
    yield HostileFile("bomb.png", png_file(side, side, depth=1, rows=bytes(1 + (side + 7) // 8) * side), "too_large")
    yield HostileFile("bomb.tif", tiff_file(side, side), "too_large")
    yield HostileFile("bomb.webp", _webp_canvas(side, side), "too_large")
    gif = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield HostileFile("bomb.gif", bytes(gif), "too_large")
    yield HostileFile("bomb.jpg", _jpeg_of_size(65_000, 65_000), "too_large")
    bmp = bytearray(encoded(photo(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    yield HostileFile("bomb.bmp", bytes(bmp), "too_large")
    text = b"tEXt-bomb\0\0" + zlib.compress(bytes(100 << 20), 1)
    yield HostileFile("text-bomb.png", png_file(2, 2, rows=b"\0\1\2" * 2, extra=[(b"zTXt", text)]), OK)


def _odd_sizes() -> Iterator[HostileFile]:
    yield HostileFile("1x1.png", encoded(photo(1, 1, 1), "PNG"), OK)
    yield HostileFile("1x1.jpg", encoded(photo(1, 1, 1), "JPEG"), OK)
    yield HostileFile("1x20000.png", encoded(photo(2, 20_000, 1), "PNG"), OK)
    yield HostileFile("20000x1.jpg", encoded(photo(2, 1, 20_000), "JPEG"), OK)
    yield HostileFile("0x0.png", png_file(0, 0, rows=b""), "undecodable")
    yield HostileFile("0x0.jpg", _jpeg_of_size(0, 0), "undecodable")
    yield HostileFile("0x0.gif", b"GIF89a" + bytes(7) + b";", "undecodable")
    yield HostileFile("0x0.tif", tiff_file(0, 0), "undecodable")


def _odd_pixels() -> Iterator[HostileFile]:
    frames = [Image.fromarray(photo(seed)) for seed in range(3)]
    for kind, name in (
        ("GIF", "animated.gif"),
        ("WEBP", "animated.webp"),
        ("PNG", "animated.apng"),
        ("TIFF", "pages.tif"),
    ):
        yield HostileFile(name, encoded(frames[0], kind, save_all=True, append_images=frames[1:]), OK)
    grey = photo()[..., 0]
    yield HostileFile("grey.jpg", encoded(grey, "JPEG"), OK)
    yield HostileFile("sixteen-bit.tif", encoded(grey.astype(np.uint16) * 257, "TIFF"), OK)
    yield HostileFile("sixteen-bit.png", encoded(grey.astype(np.uint16) * 257, "PNG"), OK)
    yield HostileFile("float.tif", encoded(grey.astype(np.float32) / 255, "TIFF"), OK)
    yield HostileFile("nan.tif", encoded(np.full((9, 9), np.nan, np.float32), "TIFF"), OK)
    yield HostileFile("cmyk.jpg", encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG"), OK)
    yield HostileFile("ycck.jpg", ycck_jpeg(photo()), OK)
    yield HostileFile("alpha.png", encoded(np.dstack([photo(), grey]), "PNG"), OK)
    yield HostileFile("palette.png", encoded(frames[0].quantize(16), "PNG", transparency=3), OK)
    yield HostileFile("bilevel.tif", encoded(Image.fromarray(grey > 99), "TIFF", compression="group4"), OK)


def _odd_metadata() -> Iterator[HostileFile]:
    jpeg = good_jpeg()
    for number, junk in enumerate((b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + b"\xff" * 300)):
        segment = b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk
        yield HostileFile(f"broken-exif-{number}.jpg", jpeg[:2] + segment + jpeg[2:], OK)
    turned = Image.Exif()
    turned[0x0112] = 6
    yield HostileFile("turned.jpg", encoded(photo(), "JPEG", exif=turned), OK)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield HostileFile("icc.jpg", encoded(photo(), "JPEG", icc_profile=profile), OK)
    yield HostileFile("broken-icc.png", encoded(photo(), "PNG", icc_profile=b"no profile at all"), OK)
    yield HostileFile("trailing-junk.jpg", jpeg + b"<script>" * 1000, OK)
    yield HostileFile("wrong-extension.png", jpeg, OK)
    yield HostileFile("new\nline and space ☃.jpg", jpeg, OK)


@cache
def hostile_shards() -> tuple[HostileShard, ...]:
    """Tar shards; every good member in them must get its labels."""
    good = [(f"good-{number}.jpg", good_jpeg(number)) for number in range(3)]
    rows = tuple((f"#{name}", OK) for name, _ in good)
    whole = tar_file(good)
    nested = tar_file([good[0], ("inner.tar", tar_file([("in.jpg", good_jpeg(9))])), *good[1:]])
    files = [file for file in hostile_files() if file.size is None]
    wild = [
        "../../../../tmp/escape.jpg",
        "/etc/passwd.jpg",
        "new\nline.jpg",
        "sp ace.jpg",
        "ünï☃.jpg",
        "a" * 300 + ".jpg",
    ]
    return (
        HostileShard(
            "mixed.tar",
            tar_file([good[0], *((file.name, file.data) for file in files), *good[1:]]),
            (rows[0], *((f"#{file.name}", file.status) for file in files), *rows[1:]),
        ),
        HostileShard(
            "truncated.tar", whole[: whole.index(b"good-2.jpg") + 512 + 300], (*rows[:2], (rows[2][0], "truncated"))
        ),
        HostileShard("overlong.tar", _overlong(good), (*rows[:2], (rows[2][0], "truncated"))),
        HostileShard("lying.tar", _lying(good, 1), (rows[0], (rows[1][0], "truncated"), rows[2])),
        HostileShard("no-end.tar", whole[: -(-len(whole.rstrip(b"\0")) // 512) * 512], (*rows, ("", "truncated"))),
        HostileShard("nested.tar", nested, rows),
        HostileShard("gzipped.tar", gzip.compress(whole, mtime=0), (("", "unsupported"),)),
        HostileShard("page.tar", b"<html>" + b"no tar " * 200, (("", "undecodable"),)),
        HostileShard("empty-file.tar", b"", (("", "undecodable"),)),
        HostileShard("empty-archive.tar", tar_file([]), ()),
        HostileShard(
            "twice.tar",
            tar_file([("same.jpg", good_jpeg(n)) for n in range(3)]),
            (("#same.jpg", OK), ("#same.jpg#2", OK), ("#same.jpg#3", OK)),
        ),
        HostileShard("names.tar", tar_file([(n, good_jpeg()) for n in wild]), tuple((f"#{name}", OK) for name in wild)),
        HostileShard(
            "any-order.tar",
            tar_file(
                [("b.json", b"{}"), good[2], ("a.txt", b"x"), good[0], ("b.cls", b"1"), ("._x.jpg", b"macOS"), good[1]]
            ),
            (rows[2], rows[0], rows[1]),
        ),
    )


def write_lake(folder: Path) -> dict[str, str]:
    """Writes all files and shards into `folder`; returns {image id: status} of every row that they must give."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str] = {}
    for file in hostile_files():
        path = folder / file.name
        with path.open("wb") as stream:
            stream.write(file.data)
            stream.truncate(file.size or len(file.data))
        expected[str(path)] = file.status
    for shard in hostile_shards():
        path = folder / shard.name
        path.write_bytes(shard.data)
        expected |= {f"{path}{suffix}": status for suffix, status in shard.rows}
    return expected


# ---- files that no library writes


def png_file(
    width: int,
    height: int,
    *,
    rows: bytes,
    depth: int = 8,
    colour: int = 0,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """`rows` are filter byte and samples of each row; `extra` chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *(extra or []), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def tiff_file(width: int, height: int) -> bytes:
    """8-bit grey, uncompressed, with one strip of eight bytes."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 8)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in tags)
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)).ljust(200, b"\0") + b"12345678"


def ycck_jpeg(rgb: np.ndarray) -> bytes:
    """As Photoshop writes it: YCC of the inverted colours and an inverted black; the Adobe marker says so."""
    inverted = Image.fromarray(255 - rgb).convert("YCbCr")
    planes = np.dstack([255 - np.asarray(inverted), np.zeros(rgb.shape[:2], np.uint8)])
    data = bytearray(
        encoded(Image.frombytes("CMYK", (rgb.shape[1], rgb.shape[0]), planes.tobytes()), "JPEG", quality=95)
    )
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def _webp_canvas(width: int, height: int) -> bytes:
    """An extended header with a canvas of that size around an image of 1 × 1."""
    frame = encoded(photo(0, 1, 1), "WEBP", lossless=True)[12:]
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", len(canvas)) + canvas + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(good_jpeg())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tar_file(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _overlong(members: list[tuple[str, bytes]]) -> bytes:
    """A tar with a header that makes its last member longer than the archive."""
    data = bytearray(tar_file(members))
    name, body = members[-1]
    info = tarfile.TarInfo(name)
    info.size = len(body) + (1 << 40)
    start = data.index(name.encode())
    data[start : start + 512] = info.tobuf(tarfile.GNU_FORMAT)[:512]
    return bytes(data)


def _lying(members: list[tuple[str, bytes]], which: int) -> bytes:
    """A tar in which one member is longer than its header says."""
    data = bytearray(tar_file([(n, d + bytes(9000) if i == which else d) for i, (n, d) in enumerate(members)]))
    name, body = members[which]
    info = tarfile.TarInfo(name)
    info.size = len(body) // 2
    start = data.index(name.encode())
    data[start : start + 512] = info.tobuf()[:512]
    return bytes(data)
