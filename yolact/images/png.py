"""PNG: which chunks of a file matter for its pixels, and samples of 16 bits at full depth.

Pillow reads every chunk and refuses the whole file for one that it does not like: a comment of over a megabyte, a
colour profile with a wrong checksum. So Pillow is given only the chunks that pixels depend on. A damaged ancillary
chunk is left out, as libpng does; damaged pixel data is an error.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import PngImagePlugin

from yolact.images.errors import ImageError
from yolact.images.exif import orientation_of
from yolact.images.values import alpha_to_8_bits, laid_over_white, samples_to_8_bits, significant_bits, to_rgb

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)}
#: by colour type: the mode of Pillow, and what to call the file's samples to get their high or their low bytes
_HIGH_AND_LOW_BYTES = {_RGB: ("RGB", "RGB;16B", "RGB;16L"), _RGB_ALPHA: ("RGBA", "RGBA;16B", "RGBA;16L")}
_CUT = "the PNG file ends before its last pixel"


class _Chunk(NamedTuple):
    name: bytes
    body: memoryview
    whole: memoryview
    """With length, name and checksum, as it stands in the file."""
    sound: bool
    """Whether the checksum fits."""


@dataclass(frozen=True)
class PngFile:
    """What the pixels of a PNG file depend on."""

    width: int
    height: int
    depth: int
    colour: int
    """The colour type, as PNG numbers them."""
    transparent: tuple[int, ...] | None
    """The one transparent colour of a grey or RGB file, as samples of the file's depth."""
    declared_bits: int | None
    """The number of significant bits that the file declares, the same for all its channels (sBIT)."""
    orientation: int
    pixels_file: bytes
    """A PNG file of nothing but header, palette and pixel data."""


def read_png(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """The RGB pixels of a PNG file (of an APNG, its default image), not yet upright, and their EXIF orientation.

    Returns:
        (height, width, 3) uint8, and 1 to 8.

    Raises:
        ImageError: for a file that cannot be read, or one of more than `max_pixels`.
    """
    file = parse_png(data, max_pixels)
    image = PngImagePlugin.PngImageFile(io.BytesIO(file.pixels_file))
    if file.depth == 16:
        return _sixteen_bit_rgb(file, image), file.orientation
    image.load()
    if file.transparent is None:
        return np.asarray(to_rgb(image)), file.orientation
    # samples of less than 8 bits were scaled to 8
    key = np.array(file.transparent) * 255 // (2**file.depth - 1)
    rgb = np.asarray(image.convert("RGB"))
    return laid_over_white(rgb, _alpha_of_key(rgb, key)), file.orientation


def parse_png(data: bytes, max_pixels: int) -> PngFile:
    """Read the chunks of a PNG file.

    Raises:
        ImageError: for damaged or missing chunks that pixels depend on, and for more than `max_pixels`.
    """
    chunks = _chunks(data)
    header = next(chunks, None)
    if header is not None and header.name == b"CgBI":
        raise ImageError("unsupported", "a PNG file in the form that Apple's iOS tools write (CgBI)")
    if header is None or header.name != b"IHDR" or len(header.body) != 13:
        raise ImageError("undecodable", "corrupt PNG data (the header chunk IHDR is missing or damaged)")
    if not header.sound:
        raise ImageError("undecodable", "corrupt PNG data (wrong checksum of the chunk IHDR)")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", header.body)
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise ImageError("undecodable", "corrupt PNG data (its header names no valid kind of pixels)")
    ImageError.check_pixels(width, height, max_pixels)

    kept: list[bytes | memoryview] = [_SIGNATURE, header.whole]
    has_pixels, has_palette = False, False
    transparent, declared, orientation = None, None, 1
    for chunk in chunks:
        if chunk.name == b"IEND":
            break
        ancillary = bool(chunk.name[0] & 0x20)
        if ancillary and not chunk.sound:
            continue
        if not chunk.sound:
            raise ImageError("undecodable", f"corrupt PNG data (wrong checksum of the chunk {_printable(chunk.name)})")
        if chunk.name == b"IDAT":
            has_pixels = True
            kept.append(chunk.whole)
        elif chunk.name == b"PLTE":
            if colour == _PALETTE and not has_palette:
                has_palette = True
                kept.append(chunk.whole)
        elif chunk.name == b"tRNS":
            if colour == _PALETTE and has_palette and not has_pixels and 1 <= len(chunk.body) <= 256:
                kept.append(chunk.whole)
            elif colour in (_GREY, _RGB) and len(chunk.body) == 2 * _CHANNELS[colour]:
                samples = np.frombuffer(chunk.body, ">u2") & (2**depth - 1)
                transparent = tuple(int(sample) for sample in samples)
        elif chunk.name == b"sBIT":
            if colour != _PALETTE and len(set(chunk.body)) == 1 and 0 < chunk.body[0] <= depth:
                declared = chunk.body[0]
        elif chunk.name == b"eXIf":
            orientation = orientation_of(bytes(chunk.body))
        elif not ancillary:
            name = _printable(chunk.name)
            raise ImageError("unsupported", f"a PNG file that needs the chunk {name}, which is not known here")
    if not has_pixels:
        raise ImageError("truncated", _CUT)
    if colour == _PALETTE and not has_palette:
        raise ImageError("undecodable", "corrupt PNG data (its palette is missing)")
    file = b"".join([*kept, struct.pack(">I", 0) + b"IEND\xae\x42\x60\x82"])
    return PngFile(width, height, depth, colour, transparent, declared, orientation, file)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks of a file in order.

    Raises:
        ImageError: truncated, where pixel data ends early. Other chunks that end early are the end of the file.
    """
    place, view = len(_SIGNATURE), memoryview(data)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        name = data[place + 4 : place + 8]
        end = place + 8 + length
        if end + 4 > len(data):
            if name == b"IDAT":
                raise ImageError("truncated", _CUT)
            return
        sound = zlib.crc32(view[place + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        yield _Chunk(name, view[place + 8 : end], view[place : end + 4], sound)
        place = end + 4


def _printable(name: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in name)


def _sixteen_bit_rgb(file: PngFile, image: PngImagePlugin.PngImageFile) -> np.ndarray:
    """(height, width, 3) uint8 of a file with 16-bit samples."""
    if file.colour in _HIGH_AND_LOW_BYTES:
        mode, high_bytes, low_bytes = _HIGH_AND_LOW_BYTES[file.colour]
        high = _read_as(image, mode, high_bytes)
        largest = int(high[..., :3].max()) << 8
        if file.transparent is None and significant_bits(largest, 16, file.declared_bits) == 16:
            return np.asarray(to_rgb(image))  # the high bytes are the image: no need to read the low ones
        # Pillow gives one byte of a sample. Told that samples are little-endian, Pillow gives the other one
        low = _read_as(PngImagePlugin.PngImageFile(io.BytesIO(file.pixels_file)), mode, low_bytes)
        samples = _joined(high, low)
    elif file.colour == _GREY_ALPHA:
        # a pixel has as many bytes as one of 8-bit RGBA
        four = _read_as(image, "RGBA", "RGBA")
        samples = _joined(four[..., 0::2], four[..., 1::2])
    else:
        image.load()
        samples = np.asarray(image).astype(np.uint16)[..., None]

    has_alpha = file.colour in (_GREY_ALPHA, _RGB_ALPHA)
    rgb, bits = samples_to_8_bits(samples[..., :-1] if has_alpha else samples, declared_bits=file.declared_bits)
    rgb = rgb if rgb.shape[2] == 3 else rgb.repeat(3, axis=2)
    if has_alpha:
        return laid_over_white(rgb, alpha_to_8_bits(samples[..., -1], bits))
    if file.transparent is not None:
        return laid_over_white(rgb, _alpha_of_key(samples, np.array(file.transparent)))
    return rgb


def _read_as(image: PngImagePlugin.PngImageFile, mode: str, raw_mode: str) -> np.ndarray:
    """(height, width, bands of `mode`) uint8: the image's bytes in another arrangement than its own."""
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return np.asarray(image)


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """uint16 of its two bytes."""
    return np.bitwise_or(high.astype(np.uint16) << 8, low, dtype=np.uint16)


def _alpha_of_key(samples: np.ndarray, key: np.ndarray) -> np.ndarray:
    """(height, width) uint8: 0 where all samples equal the transparent colour, 255 elsewhere."""
    return np.where((samples == key).all(axis=-1), 0, 255).astype(np.uint8)
