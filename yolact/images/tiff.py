"""Decodes TIFF: from the samples of a page to RGB pixels.

Pillow knows a fixed list of combinations of sample type, depth, order and colours, and reads some of them wrongly. So
Pillow only undoes the compression (`tiff_page.plane_rows`), and this file interprets the bytes. Pillow and libtiff
decode the rest completely: YCbCr colours, and compressions that depend on the meaning of the samples (JPEG, CCITT).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFile

from yolact.images.errors import ImageError
from yolact.images.tiff_page import (
    BYTE_COMPRESSIONS,
    CMYK,
    COLOUR_SAMPLES,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    StoredTiff,
    TiffPage,
    first_page,
    plane_rows,
)
from yolact.images.values import alpha_to_8_bits, laid_over_white, samples_to_8_bits, to_rgb

_PREMULTIPLIED, _ALPHA = 1, 2
#: Corel Draw 10 writes this number for alpha
_CORELS_ALPHA = 999
#: decompressed samples may have this many bytes for each pixel of the limit
_BYTES_PER_PIXEL = 8
_ROWS_AT_ONCE = 256


def read_tiff(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """The RGB pixels of the first page of a TIFF file, not yet upright, and its orientation.

    Returns:
        (height, width, 3) uint8, and 1 to 8.

    Raises:
        ImageError: for a page that cannot be read, or one of more than `max_pixels`.
    """
    page = first_page(data, max_pixels)
    if page.compression not in BYTE_COMPRESSIONS or page.photometric == YCBCR:
        if page.bits > 8:
            raise ImageError("unsupported", f"a TIFF file of JPEG or YCbCr data with samples of {page.bits} bits")
        return _by_libtiff(data), page.orientation
    _check_sample_type(page)
    return _rgb(page, _wanted_samples(page, data, max_pixels)), page.orientation


def _check_sample_type(page: TiffPage) -> None:
    sizes = {"u": {*range(1, 17), 32, 64}, "i": {8, 16, 32, 64}, "f": {16, 32, 64}}
    if page.bits not in sizes[page.sample_format]:
        kind = {"u": "unsigned integers", "i": "signed integers", "f": "floats"}[page.sample_format]
        raise ImageError("unsupported", f"a TIFF file whose samples are {kind} of {page.bits} bits")
    known = page.predictor == 1 or (page.predictor == 2 and page.bits in (8, 16, 32, 64))
    if not known and not (page.predictor == 3 and page.sample_format == "f"):
        raise ImageError("unsupported", f"a TIFF file with predictor {page.predictor} for samples of {page.bits} bits")


class _LibtiffImage(StoredTiff):
    """Uncompressed YCbCr goes through libtiff too, which knows of colours that are stored less finely than light."""

    def _setup(self) -> None:
        super()._setup()
        if not self.use_load_libtiff and self.tag_v2.get(262) == YCBCR:
            self.use_load_libtiff = True
            self._mode = "RGB"
            size = self._tile_size
            self.tile = [ImageFile._Tile("libtiff", (0, 0, *size), 0, ("RGBX", False, self.tag_v2.offset))]


def _by_libtiff(data: bytes) -> np.ndarray:
    """(height, width, 3) uint8, as it is stored."""
    image = _LibtiffImage(io.BytesIO(data))
    image.load()
    return np.asarray(to_rgb(image))


def _alpha_place(page: TiffPage) -> tuple[int | None, bool]:
    """Which sample of a pixel is its alpha, and whether colours were multiplied by it."""
    colours = COLOUR_SAMPLES[page.photometric]
    if page.extra_samples is None:
        # RGBA by writers that do not say so
        return (3 if page.photometric == RGB and page.samples == 4 else None), False
    for place, meaning in enumerate(page.extra_samples[: page.samples - colours], colours):
        if meaning in (_PREMULTIPLIED, _ALPHA, _CORELS_ALPHA):
            return place, meaning == _PREMULTIPLIED
    return None, False


def _wanted_samples(page: TiffPage, data: bytes, max_pixels: int) -> np.ndarray:
    """(height, width, n): the colour samples of every pixel, and its alpha as the last one if there is any."""
    alpha, _ = _alpha_place(page)
    wanted = [*range(COLOUR_SAMPLES[page.photometric]), *([] if alpha is None else [alpha])]
    chunks = page.chunks_across * page.chunks_down
    size = page.row_bytes * page.chunk_height * chunks * (len(wanted) if page.planar else 1)
    if size > _BYTES_PER_PIXEL * max(max_pixels, 1 << 20):
        raise ImageError("too_large", f"{size} bytes of samples, {_BYTES_PER_PIXEL * max_pixels} allowed")
    if page.planar:
        planes = [_pixels(page, plane_rows(page, data, plane), 1) for plane in wanted]
        return np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]
    pixels = _pixels(page, plane_rows(page, data, 0), page.samples)
    return pixels if page.samples == len(wanted) else pixels[..., wanted]


def _pixels(page: TiffPage, rows: np.ndarray, samples: int) -> np.ndarray:
    """(height, width, samples) of the rows of all chunks: their numbers, without predictor, tiles put together."""
    numbers = _numbers(page, rows, samples).reshape(len(rows), page.chunk_width, samples)
    if page.predictor == 2:
        numbers = np.cumsum(numbers, axis=1, dtype=numbers.dtype)
    if page.tiled:
        down, across = page.chunks_down, page.chunks_across
        numbers = numbers.reshape(down, across, page.chunk_height, page.chunk_width, samples).swapaxes(1, 2)
        numbers = numbers.reshape(down * page.chunk_height, across * page.chunk_width, samples)
        numbers = numbers[: page.height, : page.width]
    if page.sample_format == "f" and page.predictor != 3:
        return numbers.view(f"f{numbers.dtype.itemsize}")
    return numbers.view(f"i{numbers.dtype.itemsize}") if page.sample_format == "i" else numbers


def _numbers(page: TiffPage, rows: np.ndarray, samples: int) -> np.ndarray:
    """Bytes as unsigned integers of the samples' size (floats too, but for predictor 3), in this machine's order."""
    if page.predictor == 3:
        return _floating_point_predictor(rows, page.bits // 8, samples)
    if page.bits in (8, 16, 32, 64):
        return rows.view(f"{page.order}u{page.bits // 8}").astype(f"u{page.bits // 8}", copy=False)
    return _unpacked(rows, page.bits, page.chunk_width * samples)


def _floating_point_predictor(rows: np.ndarray, size: int, samples: int) -> np.ndarray:
    """Floats whose bytes stand in planes, the highest first, each byte less by the one a pixel before it."""
    count = rows.shape[1] // size
    sums = np.cumsum(rows.reshape(len(rows), -1, samples), axis=1, dtype=np.uint8)
    planes = sums.reshape(len(rows), size, count).swapaxes(1, 2)
    return np.ascontiguousarray(planes).view(f">f{size}")[..., 0].astype(f"f{size}")


def _unpacked(rows: np.ndarray, bits: int, count: int) -> np.ndarray:
    """(rows, count) uint8 or uint16 of samples of 1 to 15 bits, which follow each other without gaps in a row."""
    out = np.empty((len(rows), count), np.uint8 if bits <= 8 else np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(out.dtype)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        each_bit = np.unpackbits(rows[start : start + _ROWS_AT_ONCE], axis=1)[:, : count * bits]
        out[start : start + _ROWS_AT_ONCE] = each_bit.reshape(-1, count, bits) @ weights
    return out


def _rgb(page: TiffPage, samples: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 of the samples that `_wanted_samples` gives."""
    number = COLOUR_SAMPLES[page.photometric]
    colours, alpha = samples[..., :number], samples[..., number:]
    if page.photometric == PALETTE:
        rgb, bits = _palette_colours(page, colours[..., 0]), 8
    else:
        eight_bit, bits = _colours_to_8_bits(page, colours)
        if page.photometric == CMYK:
            rgb = np.asarray(Image.fromarray(np.ascontiguousarray(eight_bit), "CMYK").convert("RGB"))
        else:
            grey_or_rgb = 255 - eight_bit if page.photometric == WHITE_IS_ZERO else eight_bit
            rgb = grey_or_rgb if number == 3 else grey_or_rgb.repeat(3, axis=2)
    if not alpha.shape[2]:
        return rgb
    _, premultiplied = _alpha_place(page)
    return laid_over_white(rgb, _alpha_to_8_bits(page, alpha[..., 0], bits), premultiplied=premultiplied)


def _colours_to_8_bits(page: TiffPage, colours: np.ndarray) -> tuple[np.ndarray, int]:
    if page.bits < 8:
        return _scaled_up(colours, page.bits), page.bits
    if page.bits == 8 and page.sample_format == "u":
        return colours, 8
    if page.bits < 16 and page.sample_format == "u":
        return (colours >> (page.bits - 8)).astype(np.uint8), page.bits
    return samples_to_8_bits(colours, declared_range=page.value_range)


def _scaled_up(values: np.ndarray, bits: int) -> np.ndarray:
    table = np.rint(np.arange(2**bits) * 255 / (2**bits - 1)).astype(np.uint8)
    return table[values]


def _alpha_to_8_bits(page: TiffPage, alpha: np.ndarray, colour_bits: int) -> np.ndarray:
    if page.sample_format == "f":
        return np.rint(np.clip(np.nan_to_num(alpha.astype(np.float64)), 0, 1) * 255).astype(np.uint8)
    if page.sample_format == "i":  # half of the range is below zero
        return np.rint(np.clip(alpha / (2.0 ** (page.bits - 1) - 1), 0, 1) * 255).astype(np.uint8)
    if page.bits < 8:
        return _scaled_up(alpha, page.bits)
    if page.bits == 16:
        return alpha_to_8_bits(alpha, colour_bits)
    return (alpha >> np.array(page.bits - 8, alpha.dtype)).astype(np.uint8)


def _palette_colours(page: TiffPage, indices: np.ndarray) -> np.ndarray:
    colour_map = page.colour_map
    if page.bits > 16 or page.sample_format != "u":
        raise ImageError("unsupported", f"a TIFF file with a palette for samples of {page.bits} bits")
    if colour_map is None or len(colour_map) < 3 * 2**page.bits:
        raise ImageError("undecodable", "corrupt TIFF data (its palette is missing or too short)")
    table = colour_map[: 3 * 2**page.bits].reshape(3, -1).T
    # some writers put 8-bit values there, as libtiff knows
    table = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    return table[indices]
