"""Label Studio's own run-length code for brush masks, which its browser part unpacks.

A stream of bits, most significant first: the number of values (32 bits), bits per value − 1 (5), four run sizes − 1
(4 each), then blocks: 1 for a run, which of the four sizes (2 bits), run length − 1 (that many bits), the value. The
values are the bytes of an RGBA picture, row by row: 255 four times where the mask is set, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_SIZES = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _SIZES[-1]
_CHANNELS = 4


def encode_brush(mask: np.ndarray) -> list[int]:
    """A bool mask (height, width) as the list of byte values that goes into a region's `rle`."""
    values = mask.astype(np.int8).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    lengths = np.diff(np.append(starts, len(values))) * _CHANNELS
    bits = [f"{len(values) * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _runs(length, 255 if values[start] else 0)
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def _runs(length: int, value: int) -> Iterator[str]:
    while length:
        piece = min(length, _LONGEST_RUN)
        choice = next(i for i, size in enumerate(_SIZES) if piece <= 1 << size)
        yield f"1{choice:02b}{piece - 1:0{_SIZES[choice]}b}{value:08b}"
        length -= piece
