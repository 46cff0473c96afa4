"""Where the members of a tar shard are, read from its headers alone, however broken it is.

Names are strings and nothing else: no file is ever opened under one.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from jobs.lake.source import Problem, Source, kind_of
from jobs.storage import Retry, read_range
from yolact.images.kinds import describe_no_image

_BLOCK = tarfile.BLOCKSIZE
_STREAM_BYTES = 8 << 20
_JUMP_BYTES = 64 << 10
#: a jump over less than this costs more than reading on
_GAP_BYTES = 2 << 20
#: an extended header (long name, attributes) of more bytes is no header
_MAX_EXTENDED = 1 << 20
_ZEROS = bytes(_BLOCK)


class Member(NamedTuple):
    """One file in a shard: its bytes are `length` from `offset`. `name` None: what is wrong with the shard as such."""

    name: str | None
    offset: int
    length: int
    problem: Problem | None


class _Blocks:
    """Reads forward through an object: large blocks while headers lie close together, small ones when they do not."""

    def __init__(self, source: Source, retry: Retry) -> None:
        self._source = source
        self._retry = retry
        self._start = 0
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer only at the end of the object."""
        length = max(0, min(length, self._source.size - offset))
        if offset < self._start or offset + length > self._start + len(self._data):
            gap = offset - self._start - len(self._data)
            ahead = _STREAM_BYTES if gap < _GAP_BYTES else _JUMP_BYTES
            wanted = min(max(length, ahead), self._source.size - offset)
            etag = self._source.etag or None
            self._data = read_range(self._source.uri, offset, wanted, etag=etag, retry=self._retry)
            self._start = offset
        return self._data[offset - self._start : offset - self._start + length]


def read_members(source: Source, retry: Retry) -> Iterator[Member]:
    """Every regular file of the shard in its order, cut and contradictory ones with a problem.

    A tar that ends early, or whose headers cannot be followed, gives a problem for the member at fault, or one without
    a name where there is none; after a member that is longer than its header says the next header is searched for.
    Links and sparse files are members with a problem. Archives one behind the other are read as one. Raises what
    `jobs.storage` raises.
    """
    return _Members(source, retry).all()


class _Members:
    def __init__(self, source: Source, retry: Retry) -> None:
        self._size = source.size
        self._blocks = _Blocks(source, retry)
        self._position = 0
        self._last: Member | None = None
        self._long_name: str | None = None
        self._pax: dict[str, str] = {}
        self._global_pax: dict[str, str] = {}

    def all(self) -> Iterator[Member]:
        first = self._blocks.read(0, _BLOCK)
        if (problem := _no_tar(first)) is not None:
            yield Member(None, 0, 0, problem)
            return
        at_end = False
        while not at_end:
            block = self._blocks.read(self._position, _BLOCK)
            if block == _ZEROS:  # the end, or where archives that were joined meet
                at_end = not self._find_header(self._position)
            elif len(block) < _BLOCK:
                yield from self._flush()
                yield Member(None, 0, 0, Problem("truncated", "the tar has no end mark; members may be missing"))
                return
            else:
                found, at_end = self._header(block)
                yield from found
        yield from self._flush()

    def _header(self, block: bytes) -> tuple[list[Member], bool]:
        """Takes one header; gives members that are now known whole, and whether nothing can follow."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if not 0 <= info.size < 1 << 60:
                raise tarfile.HeaderError(f"size {info.size}")
            if self._is_extension(info):
                return [], False
        except (tarfile.HeaderError, ValueError):
            return self._lost()
        before = list(self._flush())
        data = self._position + _BLOCK
        member = self._member(info, data)
        has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        length = member.length if has_data else 0
        self._position = data + -(-length // _BLOCK) * _BLOCK
        self._last = member if has_data or info.issym() or info.islnk() else None
        self._long_name, self._pax = None, {}
        if data + length > self._size:
            return before, self._cut(member, data)
        return before, False

    def _member(self, info: tarfile.TarInfo, data: int) -> Member:
        attributes = self._global_pax | self._pax
        name = attributes.get("path") or self._long_name or info.name
        length = info.size
        if attributes.get("size", "").isdecimal():
            length = int(attributes["size"])
        problem = None
        if info.issym() or info.islnk():
            problem = Problem("unsupported", "a link inside the tar, without data of its own")
        elif info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in attributes):
            problem = Problem("unsupported", "stored as a sparse file inside the tar")
        elif data + length > self._size:
            missing = data + length - self._size
            problem = Problem("truncated", f"the tar ends {missing} bytes before this member does")
        return Member(name, data, length, problem)

    def _is_extension(self, info: tarfile.TarInfo) -> bool:
        """Takes in a header that only says something about the next one."""
        long_name, pax = info.type == tarfile.GNUTYPE_LONGNAME, info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        if not (long_name or pax or info.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)):
            return False
        if info.size > _MAX_EXTENDED:
            raise tarfile.HeaderError(f"extended header of {info.size} bytes")
        body = self._blocks.read(self._position + _BLOCK, info.size)
        if long_name:
            self._long_name = body.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif pax:
            self._pax = _pax_attributes(body)
        elif info.type == tarfile.XGLTYPE:
            self._global_pax |= _pax_attributes(body)
        self._position += _BLOCK + -(-info.size // _BLOCK) * _BLOCK
        return True

    def _flush(self) -> Iterator[Member]:
        if self._last is not None:
            yield self._last
            self._last = None

    def _lost(self) -> tuple[list[Member], bool]:
        """No header where one should be: the member before it is longer than it says, or the tar is corrupt here."""
        place = f"no header follows at byte {self._position}"
        last, self._last = self._last, None
        if last is not None and last.name is not None and kind_of(last.name) == "image":
            text = f"longer than the {last.length} bytes that the tar gives it; {place}"
            found = [last._replace(problem=last.problem or Problem("truncated", text))]
        else:
            problem = Member(None, 0, 0, Problem("undecodable", f"corrupt tar: {place}; members may be missing"))
            found = [problem] if last is None else [last, problem]
        return found, not self._find_header(self._position + _BLOCK)

    def _cut(self, member: Member, data: int) -> bool:
        """The shard ends within this member. If it is no lie of the header, no other header will be found."""
        if member.name is not None and kind_of(member.name) == "image":
            return not self._find_header(data)
        return True

    def _find_header(self, start: int) -> bool:
        """Goes on at the next block from `start` that is a header beyond doubt; False if there is none."""
        self._long_name, self._pax = None, {}
        position = start
        while chunk := self._blocks.read(position, _STREAM_BYTES):
            for place in range(0, len(chunk) - _BLOCK + 1, _BLOCK):
                if chunk[place + 257 : place + 262] == b"ustar" and _is_header(chunk[place : place + _BLOCK]):
                    self._position = position + place
                    return True
            position += len(chunk)
        return False


def _is_header(block: bytes) -> bool:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size >= 0
    except tarfile.HeaderError:
        return False


def _no_tar(first: bytes) -> Problem | None:
    """What to say of an object that does not start like a tar; None for one that does (or is an empty archive)."""
    if not first:
        return Problem("undecodable", "no tar archive: the file is empty")
    if first == _ZEROS or (len(first) == _BLOCK and _is_header(first)):
        return None
    for magic, name in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if first.startswith(magic):
            return Problem(
                "unsupported", f"{name}-compressed: images in a tar are fetched by their place in it; unpack it"
            )
    if len(first) < _BLOCK:
        return Problem("truncated", f"no tar archive: the file has {len(first)} bytes")
    return Problem("undecodable", f"no tar archive: the file is {describe_no_image(first)}")


def _pax_attributes(body: bytes) -> dict[str, str]:
    """The "length key=value" records of an extended header, as far as they can be followed."""
    attributes: dict[str, str] = {}
    position = 0
    while position < len(body):
        digits = body[position : position + 20].partition(b" ")[0]
        if not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        record = body[position + len(digits) + 1 : position + int(digits) - 1]
        key, _, value = record.partition(b"=")
        attributes[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position += int(digits)
    return attributes
