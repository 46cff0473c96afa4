"""Sparse members of tars: files without their stretches of zeros, in the four formats of GNU tar."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_BLOCK = tarfile.BLOCKSIZE
#: a map of more bytes than this is no map of an image
_MAX_MAP = 1 << 20


class Piece(NamedTuple):
    """`length` bytes that stand at `start` in the file; the pieces are stored one behind the other."""

    start: int
    length: int


@dataclass(frozen=True)
class SparseMap:
    """The stored pieces of a file of `size` bytes; the rest is zeros. The first `map_bytes` of its data are the map."""

    size: int
    pieces: tuple[Piece, ...]
    map_bytes: int = 0

    @property
    def stored(self) -> int:
        """Bytes of all pieces together."""
        return sum(piece.length for piece in self.pieces)

    def is_whole(self) -> bool:
        """Whether nothing was left out, so that the stored bytes are the file."""
        return self.stored == self.size and all(piece.start == 0 or not piece.length for piece in self.pieces)

    def is_possible(self) -> bool:
        """Whether the pieces rise, do not overlap and lie within the file."""
        end = 0
        for piece in self.pieces:
            if piece.length and (piece.start < end or piece.length < 0):
                return False
            end = max(end, piece.start + piece.length)
        return end <= self.size

    def restore(self, stored: bytes) -> bytes:
        """The file, from the stored bytes of its pieces."""
        file = bytearray(self.size)
        position = 0
        for start, length in self.pieces:
            file[start : start + length] = stored[position : position + length]
            position += length
        return bytes(file)


def old_gnu_map(header: bytes, read_block: Callable[[], bytes]) -> SparseMap:
    """From a header of type S, and as many blocks behind it as it asks for. Raises ValueError where they are broken."""
    pieces = _entries(header, 386, 4)
    more, size = header[482], tarfile.nti(header[483:495])  # type: ignore[attr-defined]
    while more:
        block = read_block()
        if len(block) < _BLOCK:
            raise ValueError("the map of a sparse file is cut off")
        pieces += _entries(block, 0, 21)
        more = block[504]
    return _checked(size, pieces)


def _entries(block: bytes, position: int, count: int) -> list[Piece]:
    places = range(position, position + 24 * count, 24)
    return [Piece(tarfile.nti(block[p : p + 12]), tarfile.nti(block[p + 12 : p + 24])) for p in places]  # type: ignore[attr-defined]


def pax_map(attributes: Mapping[str, str], read_data: Callable[[int, int], bytes]) -> SparseMap:
    """From the "GNU.sparse.…" attributes, in version 1.0 from the start of the member's data.

    `read_data(start, length)` gives those. Raises ValueError where they contradict themselves.
    """
    if "GNU.sparse.major" in attributes:
        return _map_in_data(int(attributes["GNU.sparse.realsize"]), read_data)
    numbers = [int(number) for number in attributes.get("GNU.sparse.map", "").split(",") if number]
    size = attributes.get("GNU.sparse.size") or attributes.get("GNU.sparse.realsize")
    if size is None:
        raise ValueError("the size of a sparse file is missing")
    return _checked(int(size), _paired(numbers))


def _map_in_data(size: int, read_data: Callable[[int, int], bytes]) -> SparseMap:
    """Decimal numbers, one a line: the number of pieces, then start and length of each; padded to whole blocks."""
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        block = read_data(len(text), _BLOCK)
        if len(block) < _BLOCK or len(text) > _MAX_MAP:
            raise ValueError("the map of a sparse file is cut off")
        text += block
        if b"\n" in text:
            wanted = 1 + 2 * int(text.partition(b"\n")[0])
    numbers = [int(line) for line in text.split(b"\n")[1:wanted]]
    return _checked(size, _paired(numbers), len(text))


def _paired(numbers: list[int]) -> list[Piece]:
    return [Piece(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _checked(size: int, pieces: list[Piece], map_bytes: int = 0) -> SparseMap:
    found = SparseMap(size, tuple(piece for piece in pieces if piece.length), map_bytes)
    if not found.is_possible():
        raise ValueError("the map of a sparse file contradicts itself")
    return found
