"""Where the members of a tar shard are, read from its headers only. Broken tars are read as far as possible.

Names of members are only strings here: no file with such a name is ever opened.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from jobs.lake.source import Problem, Source, kind_of, printable_name
from jobs.lake.tar_sparse import SparseMap, old_gnu_map, pax_map
from jobs.storage import Retry, one_line, read_range
from yolact.images.kinds import describe_no_image

_BLOCK = tarfile.BLOCKSIZE
_STREAM_BYTES = 8 << 20
_JUMP_BYTES = 64 << 10
#: to skip fewer bytes than this costs more than to read them
_GAP_BYTES = 2 << 20
#: a member of more bytes is no member: no store has such objects, and the index holds sizes as 64-bit numbers
_MAX_SIZE = 1 << 60
#: an extended header (long name, attributes) of more bytes is no header
_MAX_EXTENDED = 1 << 20
_ZEROS = bytes(_BLOCK)
#: headers that describe the next member
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE,
)  # fmt: skip
#: entries with data that are no files: Solaris' access lists (A) and extended attributes (E), GNU tar's folder listings
#: (D), rests of a file from another volume (M), old long names (N) and volume labels (V), star's inodes (I)
_ATTACHED = (b"A", b"E", b"D", b"M", b"N", b"V", b"I")


class Member(NamedTuple):
    """One file in a shard: `length` bytes from `offset`. If `name` is None, `problem` is one of the whole shard.

    `sparse` says which parts of the file these bytes are, and `header` where the first of its headers stands.
    """

    name: str | None
    offset: int
    length: int
    problem: Problem | None
    sparse: SparseMap | None = None
    header: int = 0


class _Blocks:
    """Reads forward through an object: in large blocks while headers are close together, else in small ones."""

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
    """Every regular file of the shard in its order; those that are cut off or damaged have a problem.

    A tar that ends early, or whose headers cannot be followed, gives a problem for the member at fault, or one without
    a name where there is none; after a member that is longer than its header says the next header is searched for.
    A hard link is a member with the bytes of the earlier member that it names. Symbolic links are members with a
    problem. Archives one behind the other are read as one. Raises what `jobs.storage` raises.
    """
    return _Members(source, retry).all()


def read_sparse_member(source: Source, header: int, max_bytes: int, retry: Retry) -> bytes | Problem:
    """The whole file of a sparse member whose first header is at byte `header`. Raises what `jobs.storage` raises."""
    member = _Members(source, retry).one_at(header)
    if member is None or member.sparse is None:
        return Problem("undecodable", f"corrupt tar: no sparse member at byte {header}")
    if member.problem is not None:
        return member.problem
    if member.sparse.size > max_bytes:
        return Problem("too_large", f"{member.sparse.size} bytes, {max_bytes} allowed")
    etag = source.etag or None
    return member.sparse.restore(read_range(source.uri, member.offset, member.length, etag=etag, retry=retry))


class _Members:
    def __init__(self, source: Source, retry: Retry) -> None:
        self._size = source.size
        self._blocks = _Blocks(source, retry)
        self._position = 0
        self._last: Member | None = None
        self._global_pax: dict[str, str] = {}
        self._files: dict[str, Member] = {}  # by name, for hard links
        self._forget()

    def _forget(self) -> None:
        """Forget what extended headers said: it belongs to the member that was just read."""
        self._long_name: str | None = None
        self._long_link: str | None = None
        self._pax: dict[str, str] = {}
        self._first_header = -1

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

    def one_at(self, position: int) -> Member | None:
        """The member whose first header is at `position`; None where no member is."""
        self._position = position
        while len(block := self._blocks.read(self._position, _BLOCK)) == _BLOCK:
            found, at_end = self._header(block)
            if self._last is not None or at_end or found:
                return self._last
        return None

    def _header(self, block: bytes) -> tuple[list[Member], bool]:
        """Take in one header. Returns the members that are now complete, and whether no more header can follow."""
        if self._first_header < 0:
            self._first_header = self._position
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if not 0 <= info.size < _MAX_SIZE:
                raise tarfile.HeaderError(f"size {info.size}")
            if self._is_extension(info):
                return [], False
            member, size = self._member(info, block)
        except (tarfile.HeaderError, ValueError):
            return self._lost()
        before = list(self._flush())
        data = self._position + _BLOCK
        self._position = data + -(-size // _BLOCK) * _BLOCK
        self._last = member
        self._forget()
        if member is not None and data + size > self._size:
            return before, self._cut(member, data)
        return before, False

    def _member(self, info: tarfile.TarInfo, block: bytes) -> tuple[Member | None, int]:
        """What a header stands for, None for folders and the like; and the bytes behind it, up to the next header."""
        attributes = self._global_pax | self._pax
        name = attributes.get("GNU.sparse.name") or attributes.get("path") or self._long_name or info.name
        data = self._position + _BLOCK
        if info.islnk():
            return self._linked(name, attributes.get("linkpath") or self._long_link or info.linkname), 0
        if info.issym():
            return Member(name, data, 0, Problem("unsupported", "a symbolic link inside the tar, without data")), 0
        if not (info.isreg() or info.type not in tarfile.SUPPORTED_TYPES):
            return None, 0
        size = int(attributes["size"]) if attributes.get("size", "").isdecimal() else info.size
        if size >= _MAX_SIZE:
            raise tarfile.HeaderError("a size in an extended header that no file has")
        problem = None
        if data + size > self._size:
            problem = Problem("truncated", f"the tar ends {data + size - self._size} bytes before this member does")
        member = Member(name, data, size, problem)
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in attributes):
            member, size = self._sparse(info, block, attributes, member)
        self._files[_plain(name)] = member
        return member, size

    def _linked(self, name: str, target: str) -> Member:
        file = self._files.get(_plain(target))
        if file is None:
            shown = one_line(printable_name(target), 150)
            text = f"a hard link to {shown}, which does not stand before it in the tar"
            return Member(name, self._position + _BLOCK, 0, Problem("unsupported", text))
        self._files[_plain(name)] = file
        return file._replace(name=name)

    def _sparse(
        self, info: tarfile.TarInfo, block: bytes, attributes: dict[str, str], member: Member
    ) -> tuple[Member, int]:
        """The member with its map; and the bytes between this header and the next, blocks of the map among them."""
        before = 0

        def next_block() -> bytes:
            nonlocal before
            before += _BLOCK
            return self._blocks.read(member.offset + before - _BLOCK, _BLOCK)

        def read_data(start: int, length: int) -> bytes:
            return self._blocks.read(member.offset + start, length)

        try:
            is_old = info.type == tarfile.GNUTYPE_SPARSE
            sparse = old_gnu_map(block, next_block) if is_old else pax_map(attributes, read_data)
        except (ValueError, KeyError) as error:
            problem = Problem("undecodable", f"corrupt tar: {one_line(str(error), 150)}")
            return member._replace(problem=member.problem or problem), before + member.length
        stored = member.length - sparse.map_bytes
        found = member._replace(
            offset=member.offset + before + sparse.map_bytes, length=stored, sparse=sparse, header=self._first_header
        )
        if stored != sparse.stored:
            text = f"corrupt tar: {stored} bytes of a sparse file, its map says {sparse.stored}"
            found = found._replace(problem=found.problem or Problem("undecodable", text))
        elif sparse.is_whole():
            found = found._replace(sparse=None)
        return found, before + member.length

    def _is_extension(self, info: tarfile.TarInfo) -> bool:
        """Take in a header that only describes the next one; False for any other header."""
        size = -(-info.size // _BLOCK) * _BLOCK
        if info.type in _ATTACHED:
            self._position += _BLOCK + size
            return True
        if info.type not in _EXTENDED:
            return False
        if info.size > _MAX_EXTENDED:
            raise tarfile.HeaderError(f"extended header of {info.size} bytes")
        body = self._blocks.read(self._position + _BLOCK, info.size)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            self._long_name = body.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type == tarfile.GNUTYPE_LONGLINK:
            self._long_link = body.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type == tarfile.XGLTYPE:
            self._global_pax |= _pax_attributes(body)
        else:
            self._pax = _pax_attributes(body)
        self._position += _BLOCK + size
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
        """The shard ends within this member. Another header follows only where this one gives too large a size."""
        if member.name is not None and kind_of(member.name) == "image":
            return not self._find_header(data)
        return True

    def _find_header(self, start: int) -> bool:
        """Go on at the next block from `start` that is certainly a header; False if there is none."""
        self._forget()
        position = start
        while chunk := self._blocks.read(position, _STREAM_BYTES):
            for place in range(0, len(chunk) - _BLOCK + 1, _BLOCK):
                if chunk[place + 257 : place + 262] == b"ustar" and _is_header(chunk[place : place + _BLOCK]):
                    self._position = position + place
                    return True
            position += len(chunk)
        return False


def _plain(name: str) -> str:
    """A member's name as links name it, whether or not either starts with "./" or "/"."""
    while name.startswith(("./", "/")):
        name = name.removeprefix("/").removeprefix("./")
    return name


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
        raw_key, _, raw_value = record.partition(b"=")
        key, value = raw_key.decode("utf-8", "replace"), raw_value.decode("utf-8", "surrogateescape")
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):  # the one pair of keys that comes again and again
            key, value = "GNU.sparse.map", ",".join(filter(None, (attributes.get("GNU.sparse.map"), value)))
        attributes[key] = value
        position += int(digits)
    return attributes
