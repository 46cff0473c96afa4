"""What a file is, from its first bytes: a kind of image that is read here, or what to tell people it is instead."""

from __future__ import annotations

import struct

#: the kinds that are read, by signature; WebP has its four letters behind the RIFF header
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
#: images of kinds that are not read
_OTHER_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"P5\n", "a PGM image"),
    (0, b"P6\n", "a PPM image"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"SIMPLE  =", "a FITS image"),
    (128, b"DICM", "a DICOM image"),
)
_NO_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "a zip archive"),
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"%PDF", "a PDF document"),
    (257, b"ustar", "a tar archive"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PAR1", "a Parquet file"),
)
_MARKUP: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
)


def image_kind(data: bytes) -> str | None:
    """ "JPEG", "PNG", "GIF", "BMP", "TIFF" or "WEBP"; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def other_image_kind(data: bytes) -> str | None:
    """ "an AVIF image" and the like for images that are not read here; None for anything else."""
    return next((name for offset, mark, name in _OTHER_IMAGES if data.startswith(mark, offset)), None)


def describe_no_image(data: bytes) -> str:
    """What to call bytes that are no image: "an HTML page", "a zip archive", "text", "zero bytes only" …"""
    for offset, mark, name in _NO_IMAGES:
        if data.startswith(mark, offset):
            return name
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _MARKUP:
        if head.startswith(mark):
            return name
    if not any(data):
        return "zero bytes only"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:512]):
        return "text"
    return "of no known kind"


def canvas_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a WebP or GIF file has it: their decoders allocate before they can be asked.

    None for other kinds, and where the header is cut short.
    """
    if kind == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if kind == "WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def is_cut_short(kind: str, data: bytes) -> bool:
    """Whether a WebP file ends before the length that its header gives; its decoder does not say so."""
    return kind == "WEBP" and len(data) >= 8 and int.from_bytes(data[4:8], "little") + 8 > len(data)
