"""BMP of Windows and OS/2: every depth, any colour masks, palettes.

Pillow reads only eight arrangements of colour masks, and always uses the stored alpha. Many programs write an alpha
mask but leave all alpha zero; browsers show such an image as opaque, and so does this reader. Run lengths (RLE) may end
before all pixels are set; Pillow takes that for damage.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from yolact.images.errors import ImageError
from yolact.images.values import laid_over_white

_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_OTHER_COMPRESSIONS = {4: "an embedded JPEG", 5: "an embedded PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
_DEPTHS = (1, 2, 4, 8, 16, 24, 32)
_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_CORE_HEADER, _OS2_HEADERS = 12, (16, 64)
_ROWS_AT_ONCE = 256
_CUT = "the BMP file ends before its last pixel"


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    """Without the sign that tells the order of rows."""
    top_down: bool
    bits: int
    """Bits of a pixel."""
    compression: int
    masks: tuple[int, int, int, int]
    """Which bits of a pixel are its red, green, blue and alpha; of use for 16 and 32 bits."""
    palette: np.ndarray
    """(2 to the power of `bits`, 3) uint8 RGB; empty for more than 8 bits."""
    pixels_at: int


def read_bmp(data: bytes, max_pixels: int) -> np.ndarray:
    """The RGB pixels of a BMP file, (height, width, 3) uint8.

    Raises:
        ImageError: for a file that cannot be read, or one of more than `max_pixels`.
    """
    try:
        header = _read_header(data, max_pixels)
    except struct.error:
        raise ImageError("truncated", "the BMP file ends within its header") from None
    if header.compression in (_RLE8, _RLE4):
        indices = _run_lengths(data, header)
        return header.palette[indices if header.top_down else indices[::-1]]
    stride = -(-header.width * header.bits // 32) * 4
    if header.pixels_at + stride * header.height > len(data):
        raise ImageError("truncated", _CUT)
    rows = np.frombuffer(data, np.uint8, stride * header.height, header.pixels_at).reshape(header.height, stride)
    if not header.top_down:
        rows = rows[::-1]
    if header.bits == 24:
        return np.ascontiguousarray(rows[:, : 3 * header.width].reshape(header.height, header.width, 3)[..., ::-1])
    if header.bits <= 8:
        return _palette_pixels(header, rows)
    return _masked_pixels(header, rows)


def _read_header(data: bytes, max_pixels: int) -> _Header:
    pixels_at, size = struct.unpack_from("<II", data, 10)
    used, compression = 0, _RGB
    if size == _CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif size >= 40 or size == 16:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        if size >= 40:
            compression, _, _, _, used = struct.unpack_from("<IIiiI", data, 30)
    else:
        raise ImageError("unsupported", f"a BMP file with a header of {size} bytes, which is no known kind")
    ImageError.check_pixels(width, abs(height), max_pixels)
    if size in _OS2_HEADERS and compression in (3, 4):
        name = {3: "Huffman codes", 4: "24-bit run lengths"}[compression]
        raise ImageError("unsupported", f"a BMP file of OS/2 compressed with {name}, which is not read here")
    if compression not in (_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS):
        name = _OTHER_COMPRESSIONS.get(compression, f"a method of the number {compression}")
        raise ImageError("unsupported", f"a BMP file with {name}, which is not read here")
    palette_at, masks = 14 + size, _MASKS.get(bits, (0, 0, 0, 0))
    if compression in (_BITFIELDS, _ALPHA_BITFIELDS):
        number = 4 if size >= 56 or compression == _ALPHA_BITFIELDS else 3
        stated = struct.unpack_from(f"<{number}I", data, 54)
        masks = (*stated[:3], stated[3] if number == 4 else 0) if any(stated[:3]) else masks
        palette_at += 4 * number if size == 40 else 0
    if bits not in _DEPTHS:
        raise ImageError("unsupported", f"a BMP file with {bits} bits a pixel")
    if compression in (_RLE8, _RLE4) and bits != (8 if compression == _RLE8 else 4):
        raise ImageError("undecodable", f"corrupt BMP data (run lengths of another kind than {bits} bits a pixel)")
    palette = np.zeros((0, 3), np.uint8)
    if bits <= 8:
        palette = _palette(data, palette_at, pixels_at, 3 if size == _CORE_HEADER else 4, used, bits)
    return _Header(width, abs(height), height < 0, bits, compression, masks, palette, pixels_at)


def _palette(data: bytes, start: int, end: int, entry_bytes: int, used: int, bits: int) -> np.ndarray:
    """Colours that the file does not have are black."""
    room = max(min(end, len(data)) - start, 0) // entry_bytes
    number = min(used or 2**bits, 2**bits, room)
    palette = np.zeros((2**bits, 3), np.uint8)
    stored = np.frombuffer(data, np.uint8, number * entry_bytes, start).reshape(number, entry_bytes)
    palette[:number] = stored[:, 2::-1]
    return palette


def _palette_pixels(header: _Header, rows: np.ndarray) -> np.ndarray:
    if header.bits == 8:
        return header.palette[rows[:, : header.width]]
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    indices = (rows[..., None] >> shifts) & np.uint8(2**header.bits - 1)
    return header.palette[indices.reshape(header.height, -1)[:, : header.width]]


def _run_lengths(data: bytes, header: _Header) -> np.ndarray:
    """(height, width) uint8 palette indices, in the order of the file. Pixels that the codes leave out are 0."""
    indices = np.zeros((header.height, header.width), np.uint8)
    row, column, place = 0, 0, header.pixels_at
    while row < header.height:
        room = max(header.width - column, 0)
        if place + 2 > len(data):
            if row == header.height - 1 and not room:  # only the mark of the end is missing
                break
            raise ImageError("truncated", _CUT)
        count, value = data[place], data[place + 1]
        place += 2
        if count and header.bits == 8:
            indices[row, column : column + count] = value
            column += count
        elif count:  # a run of two indices by turns
            indices[row, column : column + count] = np.resize(_nibbles(bytes([value])), count)[:room]
            column += count
        elif value == 0:  # the end of the row
            row, column = row + 1, 0
        elif value == 1:  # the end of the image
            break
        elif value == 2:  # a step to the right and on
            if place + 2 > len(data):
                raise ImageError("truncated", _CUT)
            column, row, place = column + data[place], row + data[place + 1], place + 2
        else:  # indices as they are, up to an even number of bytes
            size = value if header.bits == 8 else -(-value // 2)
            stored = data[place : place + size]
            if len(stored) < size:
                raise ImageError("truncated", _CUT)
            plain = np.frombuffer(stored, np.uint8) if header.bits == 8 else _nibbles(stored)
            indices[row, column : column + value] = plain[: min(value, room)]
            column, place = column + value, place + size + size % 2
    return indices


def _nibbles(stored: bytes) -> np.ndarray:
    """The two 4-bit indices of each byte, the high one first."""
    both = np.frombuffer(stored, np.uint8)
    return np.stack([both >> 4, both & 15], axis=-1).reshape(-1)


def _masked_pixels(header: _Header, rows: np.ndarray) -> np.ndarray:
    numbers = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}")[:, : header.width]
    red, green, blue, alpha_mask = header.masks
    rgb = np.empty((header.height, header.width, 3), np.uint8)
    for channel, mask in enumerate((red, green, blue)):
        rgb[..., channel] = _field(numbers, mask)
    if alpha_mask:
        alpha = _field(numbers, alpha_mask)
        if alpha.any():
            return laid_over_white(rgb, alpha)
    return rgb


def _field(numbers: np.ndarray, mask: int) -> np.ndarray:
    """(height, width) uint8: the bits of `mask`, from 0 … their largest value to 0 … 255."""
    if not mask:
        return np.zeros(numbers.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    largest = mask >> shift
    if largest & (largest + 1) or mask >= 1 << 8 * numbers.dtype.itemsize:
        raise ImageError("unsupported", f"a BMP file with the colour mask {mask:#x}, whose bits do not stand together")
    bits = largest.bit_length()
    out = np.empty(numbers.shape, np.uint8)
    for start in range(0, len(numbers), _ROWS_AT_ONCE):
        values = (numbers[start : start + _ROWS_AT_ONCE] & numbers.dtype.type(mask)) >> numbers.dtype.type(shift)
        if bits > 8:
            out[start : start + _ROWS_AT_ONCE] = values >> (bits - 8)
        else:
            table = np.rint(np.arange(largest + 1) * 255 / largest).astype(np.uint8)
            out[start : start + _ROWS_AT_ONCE] = table[values]
    return out
