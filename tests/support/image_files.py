"""Image files written byte by byte, of the kinds that no library at hand writes: TIFF, PNG and BMP of every sort."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

#: of TIFF's number types: (its number, the code for struct)
_TIFF_NUMBERS = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12, "Q": 16}
Tag = tuple[int, str, Sequence[float]]


def tiff(
    samples: np.ndarray,
    *,
    photometric: int | None,
    order: str = "<",
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int | None = None,
    compression: int = 1,
    predictor: int = 1,
    packed_bits: int | None = None,
    fill_order: int = 1,
    big: bool = False,
    tags: Sequence[Tag] = (),
) -> bytes:
    """A TIFF file of one page.

    Args:
        samples: (height, width, samples) of the type that the file shall have.
        compression: 1 for none, 8 for zlib's, 32773 for PackBits (of literal runs only).
        packed_bits: samples are stored with so many bits each.
        tags: further entries of the directory; they win over those that follow from the rest.
    """
    height, width, number = samples.shape
    bits = packed_bits or samples.dtype.itemsize * 8
    chunk_height, chunk_width = tile or (rows_per_strip or height, width)
    planes = [samples[..., place : place + 1] for place in range(number)] if planar else [samples]
    chunks = []
    for plane in planes:
        for top in range(0, height, chunk_height):
            for left in range(0, width, chunk_width):
                chunk = plane[top : top + chunk_height, left : left + chunk_width]
                if tile:
                    down, across = chunk_height - chunk.shape[0], chunk_width - chunk.shape[1]
                    chunk = np.pad(chunk, ((0, down), (0, across), (0, 0)))
                chunks.append(_compressed(_chunk_bytes(chunk, order, predictor, packed_bits, fill_order), compression))
    kinds = {"u": 1, "i": 2, "f": 3}
    entries: dict[int, Tag] = {
        256: (256, "I", [width]),
        257: (257, "I", [height]),
        258: (258, "H", [bits] * number),
        259: (259, "H", [compression]),
        266: (266, "H", [fill_order]),
        277: (277, "H", [number]),
        284: (284, "H", [2 if planar else 1]),
        317: (317, "H", [predictor]),
        339: (339, "H", [kinds[samples.dtype.kind]] * number),
    }
    if photometric is not None:
        entries[262] = (262, "H", [photometric])
    if tile:
        entries |= {322: (322, "I", [chunk_width]), 323: (323, "I", [chunk_height])}
    else:
        entries[278] = (278, "I", [chunk_height])
    start = 16 if big else 8
    offsets = start + np.cumsum([0, *(len(chunk) for chunk in chunks[:-1])])
    place_tag, size_tag = (324, 325) if tile else (273, 279)
    entries[place_tag] = (place_tag, "I", offsets.tolist())
    entries[size_tag] = (size_tag, "I", [len(chunk) for chunk in chunks])
    entries |= {tag[0]: tag for tag in tags}
    body = b"".join(chunks)
    body += bytes(len(body) % 2)
    return _tiff_header(order, big, start + len(body)) + body + _directory(entries, order, big, start + len(body))


def _chunk_bytes(chunk: np.ndarray, order: str, predictor: int, packed_bits: int | None, fill_order: int) -> bytes:
    if packed_bits is not None:
        rows = chunk.reshape(len(chunk), -1).astype(np.uint64)
        bits = (rows[..., None] >> np.arange(packed_bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
        packed = np.packbits(bits.reshape(len(chunk), -1).astype(np.uint8), axis=1)
    elif predictor == 3:
        size = chunk.dtype.itemsize
        high_first = np.ascontiguousarray(chunk.astype(chunk.dtype.newbyteorder(">"))).view(np.uint8)
        planes = high_first.reshape(len(chunk), -1, size).swapaxes(1, 2).reshape(len(chunk), -1, chunk.shape[2])
        packed = np.diff(planes, axis=1, prepend=np.zeros((len(chunk), 1, chunk.shape[2]), np.uint8))
    else:
        if predictor == 2:
            chunk = chunk.view(f"u{chunk.dtype.itemsize}")
            chunk = np.diff(chunk, axis=1, prepend=np.zeros_like(chunk[:, :1]))
        packed = np.ascontiguousarray(chunk.astype(chunk.dtype.newbyteorder(order))).view(np.uint8)
    if fill_order == 2:
        packed = np.packbits(np.unpackbits(packed.reshape(-1, 1), axis=1)[:, ::-1], axis=1)
    return packed.tobytes()


def _compressed(data: bytes, compression: int) -> bytes:
    if compression in (8, 32946):
        return zlib.compress(data)
    if compression == 32773:
        runs = [data[start : start + 128] for start in range(0, len(data), 128)]
        return b"".join(bytes([len(run) - 1]) + run for run in runs)
    return data


def _tiff_header(order: str, big: bool, directory: int) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    if big:
        return mark + struct.pack(order + "HHHQ", 43, 8, 0, directory)
    return mark + struct.pack(order + "HI", 42, directory)


def _directory(entries: dict[int, Tag], order: str, big: bool, start: int) -> bytes:
    inline, offset = (8, "Q") if big else (4, "I")
    head = struct.pack(order + (offset if big else "H"), len(entries))
    outside_at = start + len(head) + len(entries) * (4 + 2 * inline) + inline
    rows, outside = b"", b""
    for tag, (_, code, values) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > inline:
            outside += bytes(len(outside) % 2)
            value, outside = struct.pack(order + offset, outside_at + len(outside)), outside + value
        rows += struct.pack(order + "HH" + offset, tag, _TIFF_NUMBERS[code], len(values)) + value.ljust(inline, b"\0")
    return head + rows + bytes(inline) + outside


def png(
    samples: np.ndarray,
    *,
    depth: int,
    colour: int,
    before: Sequence[tuple[bytes, bytes]] = (),
    after: Sequence[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG file whose rows use the filters "none", "sub" and "up" in turn.

    Args:
        samples: (height, width, channels), as values of `depth` bits.
        before: further chunks before the pixels, `after` behind them.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    passes = list(_adam7(samples)) if interlaced else [samples]
    rows = b"".join(_png_rows(part, depth) for part in passes if part.size)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


def png_chunk(name: bytes, body: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(name + body) ^ int(damaged)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def with_png_chunk(data: bytes, chunk: bytes, before: bytes = b"IDAT") -> bytes:
    """`data` with the bytes of one more chunk before its first one of that name."""
    place = data.index(before) - 4
    return data[:place] + chunk + data[place:]


def _png_rows(samples: np.ndarray, depth: int) -> bytes:
    height, width, channels = samples.shape
    if depth == 16:
        rows = np.ascontiguousarray(samples.astype(">u2")).view(np.uint8).reshape(height, -1)
    else:
        bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    step = max(1, channels * depth // 8)
    out = b""
    for number, row in enumerate(rows):
        kind = number % 3
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])[: len(row)]
        above = rows[number - 1] if number else np.zeros_like(row)
        out += bytes([kind]) + (row - (0, left, above)[kind]).astype(np.uint8).tobytes()
    return out


def _adam7(samples: np.ndarray) -> Iterator[np.ndarray]:
    for top, left, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        yield samples[top::down, left::right]


def bmp(
    rows: np.ndarray,
    *,
    width: int,
    bits: int,
    header_bytes: int = 40,
    compression: int = 0,
    masks: Sequence[int] = (),
    palette: Sequence[tuple[int, int, int]] = (),
    top_down: bool = False,
    colours_used: int | None = None,
) -> bytes:
    """A BMP file.

    Args:
        rows: (height, bytes of a row without padding) uint8, the top one first; or all bytes of run lengths.
        masks: of red, green, blue and alpha, for `compression` 3.
        palette: (red, green, blue) of each entry.
    """
    height = len(rows)
    if rows.ndim == 2:
        padding = -rows.shape[1] % 4
        stored = np.pad(rows, ((0, 0), (0, padding)))
        pixels = (stored if top_down else stored[::-1]).tobytes()
    else:
        height, pixels = colours_used or 0, rows.tobytes()
    masks_inside = struct.pack("<4I", *masks, *[0] * (4 - len(masks))) if masks else bytes(16)
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
        entries = b"".join(bytes(colour[::-1]) for colour in palette)
    else:
        header = struct.pack(
            "<IiiHHIIiiII",
            header_bytes,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            len(pixels),
            2835,
            2835,
            len(palette),
            0,
        )
        if header_bytes >= 52:
            header = (header + masks_inside).ljust(header_bytes, b"\0")[:header_bytes]
        elif masks:
            header += struct.pack(f"<{len(masks)}I", *masks)
        header = header[:header_bytes] if header_bytes < 40 else header
        entries = b"".join(bytes(colour[::-1]) + b"\0" for colour in palette)
    place = 14 + len(header) + len(entries)
    return b"BM" + struct.pack("<IHHI", place + len(pixels), 0, 0, place) + header + entries + pixels
