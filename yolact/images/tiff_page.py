"""Reads the directory of a TIFF file's first page, which describes the pixels, and the bytes of its samples."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from yolact.images.errors import ImageError

#: NumPy's names of the number types in a TIFF directory; rationals are not among those needed here
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8"}

UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
#: compressions of bytes: they do not depend on what the samples mean
BYTE_COMPRESSIONS = {UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD}
#: compressions that depend on what the samples mean: CCITT's three and JPEG's two
IMAGE_COMPRESSIONS = {2, 3, 4, 6, 7}
_PREDICTED = {LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD}
_OTHER_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32766: "NeXT's run lengths",
    32767: "Sony's raw compression",
    32771: "16-bit aligned CCITT",
    32809: "ThunderScan",
    32908: "Pixar's film compression",
    32909: "Pixar's log compression",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI's LogLuv compression",
    34677: "SGI's LogLuv compression",
    34712: "JPEG 2000",
    34713: "Nikon's raw compression",
    34887: "LERC",
    34892: "lossy JPEG of raw sensor data",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_OTHER_PHOTOMETRICS = {
    4: "a transparency mask",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "raw sensor data of a camera",
    32844: "logarithmic luminance",
    32845: "logarithmic colours (LogLuv)",
    34892: "raw sensor data of a camera",
    51177: "a depth map",
}
#: how many samples of a pixel carry its colour
COLOUR_SAMPLES = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_MOST_SAMPLES = 4096


@dataclass(frozen=True)
class TiffPage:
    """The first page of a TIFF file; sizes in pixels, names as in the TIFF specification."""

    order: Literal["<", ">"]
    width: int
    height: int
    bits: int
    """Bits of a sample, the same for all samples of a pixel."""
    sample_format: str
    """ "u", "i" or "f", as NumPy names the kinds of numbers."""
    samples: int
    """Samples of a pixel."""
    photometric: int
    compression: int
    planar: bool
    """The samples of a pixel stand in planes of their own."""
    predictor: int
    reversed_bits: bool
    orientation: int
    extra_samples: tuple[int, ...] | None
    """What the samples after the colours mean; None where the file does not say."""
    chunk_width: int
    """The width of a tile, or the image's where it is stored in strips."""
    chunk_height: int
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray
    """Bytes of every chunk, as many as `offsets`."""
    colour_map: np.ndarray | None
    value_range: tuple[float, float] | None
    """The smallest and largest value that the file declares."""

    @property
    def row_samples(self) -> int:
        """Samples in a row of a chunk."""
        return self.chunk_width * (1 if self.planar else self.samples)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a chunk, once decompressed."""
        return -(-self.row_samples * self.bits // 8)

    @property
    def chunks_across(self) -> int:
        return -(-self.width // self.chunk_width)

    @property
    def chunks_down(self) -> int:
        return -(-self.height // self.chunk_height)


class _Directory:
    """The entries of the first directory of a TIFF or BigTIFF file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        big = self._unpack("H", 2) == 43
        self._inline = 8 if big else 4
        place = self._unpack("Q", 8) if big else self._unpack("I", 4)
        count = self._unpack("Q" if big else "H", place)
        place += 8 if big else 2
        step, form = (20, "HHQ") if big else (12, "HHI")
        if count < 1 or place + count * step > len(data):
            raise ImageError("truncated", "the TIFF file ends within its directory")
        self._entries: dict[int, tuple[int, int, int]] = {}
        for entry in range(place, place + count * step, step):
            tag, number_type, values = struct.unpack_from(self.order + form, data, entry)
            self._entries.setdefault(tag, (number_type, values, entry + step - self._inline))

    def _unpack(self, form: str, place: int) -> int:
        try:
            (value,) = struct.unpack_from(self.order + form, self.data, place)
        except struct.error:
            raise ImageError("truncated", "the TIFF file ends before its directory") from None
        return int(value)

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def array(self, tag: int) -> np.ndarray | None:
        """The numbers of a tag; None where it is missing or holds none."""
        number_type, count, place = self._entries.get(tag, (0, 0, 0))
        if number_type not in _NUMBERS or not count:
            return None
        number = np.dtype(self.order + _NUMBERS[number_type])
        if count * number.itemsize > self._inline:
            place = self._unpack("Q" if self._inline == 8 else "I", place)
        if place + count * number.itemsize > len(self.data):
            raise ImageError("truncated", f"the TIFF file ends before the values of its tag {tag}")
        return np.frombuffer(self.data, number, count, place)

    def number(self, tag: int, default: int) -> int:
        values = self.array(tag)
        return default if values is None else int(values[0])


def first_page(data: bytes, max_pixels: int) -> TiffPage:
    """Read the directory of a TIFF or BigTIFF file.

    Raises:
        ImageError: for a page that is not read here, is broken, or has more than `max_pixels`.
    """
    if data[8:11] == b"CR\x02":
        raise ImageError("unsupported", "a camera's raw file (Canon CR2)")
    tags = _Directory(data)
    width, height = tags.number(256, 0), tags.number(257, 0)
    ImageError.check_pixels(width, height, max_pixels)
    compression, photometric = _compression(tags), _photometric(tags)
    if tags.number(254, 0) & 1:
        raise ImageError("unsupported", "a TIFF file whose first page is a small copy of another, as in raw files")
    samples = tags.number(277, 3 if compression == 6 else 1)
    if not 1 <= samples <= _MOST_SAMPLES:
        raise ImageError("unsupported", f"a TIFF file with {samples} samples a pixel")
    if samples < COLOUR_SAMPLES[photometric] and compression != 6 and photometric != YCBCR:
        raise ImageError("undecodable", f"corrupt TIFF data ({samples} samples a pixel are too few for its colours)")
    tiled = 324 in tags or 322 in tags
    offsets, counts = tags.array(324 if tiled else 273), tags.array(325 if tiled else 279)
    if offsets is None:
        offsets, counts = tags.array(273), tags.array(279)
    if offsets is None and compression != 6:
        raise ImageError("undecodable", "corrupt TIFF data (it does not say where its pixels are)")
    chunk_width = tags.number(322, 0) if tiled else width
    chunk_height = tags.number(323, 0) if tiled else min(tags.number(278, height) or height, height)
    if chunk_width < 1 or chunk_height < 1 or chunk_width * chunk_height > max(max_pixels, 1 << 20):
        raise ImageError("undecodable", f"corrupt TIFF data (tiles of {chunk_width} × {chunk_height} pixels)")
    extra = tags.array(338)
    orientation = tags.number(274, 1)
    return TiffPage(
        order=tags.order,
        width=width,
        height=height,
        bits=_bits(tags, samples),
        sample_format=_sample_format(tags),
        samples=samples,
        photometric=photometric,
        compression=compression,
        planar=tags.number(284, 1) == 2 and samples > 1,
        predictor=tags.number(317, 1) if compression in _PREDICTED else 1,
        reversed_bits=tags.number(266, 1) == 2,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        extra_samples=None if extra is None else tuple(int(meaning) for meaning in extra),
        chunk_width=chunk_width,
        chunk_height=chunk_height,
        tiled=tiled,
        offsets=np.zeros(0, np.uint64) if offsets is None else offsets.astype(np.uint64),
        counts=np.zeros(0, np.uint64) if counts is None else counts.astype(np.uint64),
        colour_map=tags.array(320),
        value_range=_value_range(tags),
    )


def _compression(tags: _Directory) -> int:
    compression = tags.number(259, UNCOMPRESSED)
    if compression not in BYTE_COMPRESSIONS | IMAGE_COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, f"a method of the number {compression}")
        raise ImageError("unsupported", f"a TIFF file compressed with {name}, which is not read here")
    return compression


def _photometric(tags: _Directory) -> int:
    photometric = tags.number(262, -1)
    if photometric == -1:  # as libtiff guesses
        bilevel = tags.number(259, UNCOMPRESSED) in (2, 3, 4)
        photometric = RGB if tags.number(277, 1) >= 3 else WHITE_IS_ZERO if bilevel else BLACK_IS_ZERO
    if photometric not in COLOUR_SAMPLES:
        name = _OTHER_PHOTOMETRICS.get(photometric, f"colours of the number {photometric}")
        raise ImageError("unsupported", f"a TIFF file with {name}, which is not read here")
    if photometric == CMYK and tags.number(332, 1) != 1:
        raise ImageError("unsupported", "a TIFF file with inks other than cyan, magenta, yellow and black")
    return photometric


def _bits(tags: _Directory, samples: int) -> int:
    bits = tags.array(258)
    distinct = {1} if bits is None else {int(value) for value in bits[:samples]}
    if len(distinct) > 1:
        raise ImageError("unsupported", f"a TIFF file with samples of different sizes ({sorted(distinct)} bits)")
    return distinct.pop()


def _sample_format(tags: _Directory) -> str:
    formats = tags.array(339)
    distinct = {1} if formats is None else {int(value) for value in formats}
    # 4 means that the writer does not say what the bits mean
    kinds = {{1: "u", 2: "i", 3: "f", 4: "u"}.get(value, "other") for value in distinct}
    if len(kinds) > 1 or "other" in kinds:
        raise ImageError("unsupported", "a TIFF file with complex numbers or samples of different types")
    return kinds.pop()


def _value_range(tags: _Directory) -> tuple[float, float] | None:
    """From SMinSampleValue and SMaxSampleValue, else from MinSampleValue and MaxSampleValue."""
    for smallest, largest in ((340, 341), (280, 281)):
        high = tags.array(largest)
        if high is not None:
            low = tags.array(smallest)
            return (0.0 if low is None else float(low.min())), float(high.max())
    return None


def plane_rows(page: TiffPage, data: bytes, plane: int) -> np.ndarray:
    """The decompressed bytes of the chunks of one plane (the only one, where samples are not planar).

    Returns:
        (rows, row_bytes) uint8, chunk under chunk; of tiles, in their order, as many rows as they have together.

    Raises:
        ImageError: truncated, where a chunk lies outside the file; undecodable, where it cannot be decompressed.
    """
    chunks = page.chunks_across * page.chunks_down
    rows = chunks * page.chunk_height if page.tiled else page.height
    places = slice(plane * chunks, (plane + 1) * chunks)
    offsets, counts = page.offsets[places], page.counts[places]
    if len(offsets) < chunks:
        raise ImageError("undecodable", f"corrupt TIFF data ({len(page.offsets)} strips or tiles are too few)")
    if page.compression == UNCOMPRESSED:
        return _uncompressed_rows(page, data, offsets, rows)
    if len(counts) < chunks:  # some writers leave them out for a single strip, which then ends with the file
        counts = np.diff(np.append(offsets, np.uint64(len(data))))
    if (counts > len(data)).any() or (offsets > np.uint64(len(data)) - counts).any():
        raise ImageError("truncated", "the TIFF file ends before its last pixel")
    return _decompressed_rows(page, data, offsets, counts, rows)


def _uncompressed_rows(page: TiffPage, data: bytes, offsets: np.ndarray, rows: int) -> np.ndarray:
    out = np.empty((rows, page.row_bytes), np.uint8)
    for number, offset in enumerate(offsets.tolist()):
        part = out[number * page.chunk_height : (number + 1) * page.chunk_height]
        if offset + part.size > len(data):
            raise ImageError("truncated", "the TIFF file ends before its last pixel")
        part[:] = np.frombuffer(data, np.uint8, part.size, offset).reshape(part.shape)
    if page.reversed_bits:
        reverse = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)
        out = reverse[:, 0][out]
    return out


def _decompressed_rows(page: TiffPage, data: bytes, offsets: np.ndarray, counts: np.ndarray, rows: int) -> np.ndarray:
    """By libtiff: the chunks are put into a TIFF file of 8-bit grey pixels, one for each byte of the real image."""
    tags = {256: page.row_bytes, 257: rows, 258: 8, 259: page.compression, 262: BLACK_IS_ZERO}
    tags |= {266: 2 if page.reversed_bits else 1, 277: 1, 278: page.chunk_height}
    directory_bytes = 2 + 12 * (len(tags) + 2) + 4
    arrays_at, array_bytes = 8 + directory_bytes, 4 * len(offsets)
    places = arrays_at + 2 * array_bytes + np.cumsum(counts) - counts
    if len(offsets) == 1:
        tags |= {273: int(places[0]), 279: int(counts[0])}
    else:
        tags |= {273: arrays_at, 279: arrays_at + array_bytes}
    entries = b"".join(
        struct.pack("<HHII", tag, 4, len(offsets) if tag in (273, 279) else 1, tags[tag]) for tag in sorted(tags)
    )
    view = memoryview(data)
    file = b"".join(
        [
            b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4),
            places.astype("<u4").tobytes(),
            counts.astype("<u4").tobytes(),
            *(view[int(start) : int(start) + int(size)] for start, size in zip(offsets, counts, strict=True)),
        ]
    )
    image = StoredTiff(io.BytesIO(file))
    image.load()
    return np.asarray(image)


class StoredTiff(TiffImagePlugin.TiffImageFile):
    """A TIFF file whose pixels stay as they are stored, and whose size was checked before.

    Pillow would turn them (by XMP data too), and has a limit of its own for their number, which the bytes of large
    pixels exceed.
    """

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        self._size = self._tile_size
