"""Indexes damaged copies of small tars and fetches their images: a folder, a first number and a number of copies.

A process of its own: what must be found is a file that ends it by a signal, or makes it wait or grow without end.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from support.damage import fault, judge_copies, limit_memory
from support.lakes import tar_bytes

from jobs.lake import Source, fetch_rows
from jobs.lake.index import index_source
from jobs.lake.source import INDEX, SPARSE_MEMBER, STATUSES, Problem

#: bytes of address space above what the imports take
MEMORY = 1 << 30
MAX_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_MEMBERS = [
    ("0001.jpg", b"first" * 300),
    ("0001.json", b"{}"),
    ("sub/0002.left.png", b"second"),
    ("empty.png", b""),
    ("long/" * 40 + "name.webp", b"third" * 200),
    ("snow ☃.jpg", b"fourth" * 100),
]
#: (start, end) of the fields of a header, and of the map in a sparse one
_FIELDS = ((0, 100), (124, 136), (156, 157), (157, 257), (257, 265), (345, 500), (386, 482), (482, 483), (483, 495))
_VALUES = (
    *(b"00000000000\0", b"00000001000\0", b"77777777777\0", b"\x80" + bytes(10) + b"\1", b"\x80" + b"\xff" * 11),
    *(b"\xff" * 12, b"\x80\0\0\0\x0f" + b"\xff" * 7, b"-1\0", b"0", b"\0", b"S", b"L", b"K", b"x", b"g", b"X", b"1"),
    *(b"2", b"5", b"A", b"D", b"V", b"7", b"ustar\00000", b"ustar  \0", b"0001.jpg\0", b"/../x.png\0", b"\xe9.png\0"),
)
#: what records of extended headers become
_RECORDS = (
    *(b"size=99999999999999999999", b"size=" + b"9" * 5000, b"size=-1", b"size=0", b"path=\xff\xfe.png", b"path="),
    *(b"path=a\nb\0c.jpg", b"linkpath=0001.jpg", b"GNU.sparse.major=1", b"GNU.sparse.realsize=9999999999999999999999"),
    *(b"GNU.sparse.size=100", b"GNU.sparse.map=0,10,5,10", b"GNU.sparse.map=0,9,x", b"GNU.sparse.numblocks=-3"),
    *(b"GNU.sparse.offset=7", b"GNU.sparse.numbytes=-7", b"GNU.sparse.name=" + b"n" * 3000 + b".png", b"GNU.sparse=1"),
    *(b"GNU.sparse.realsize=x", b"GNU.sparse.size=-1", "GNU.sparse.size=٣".encode(), "size=٣".encode(), b"=", b"size"),
)


def _link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _with_links(format: int) -> bytes:
    stream = io.BytesIO(tar_bytes(_MEMBERS, format=format))
    with tarfile.open(fileobj=stream, mode="a", format=format) as tar:
        for name, target in (("hard.jpg", "0001.jpg"), ("far.jpg", _MEMBERS[4][0]), ("lost.jpg", "elsewhere.jpg")):
            tar.addfile(_link(name, target, tarfile.LNKTYPE))
        tar.addfile(_link("soft.jpg", "0001.jpg", tarfile.SYMTYPE))
        tar.addfile(_link("folder.jpg", "", tarfile.DIRTYPE))
    return stream.getvalue()


def _sparse(folder: Path, version: str, pieces: int) -> bytes:
    """As GNU tar writes it, a plain file before and behind the sparse one."""
    with (folder / "b.tif").open("wb") as file:
        for number in range(pieces):
            file.seek(number * 8192)
            file.write(bytes([number + 1]) * 700)
        file.truncate(pieces * 8192 + 4096)
    for name in ("a.jpg", "c.jpg"):
        (folder / name).write_bytes(name.encode() * 50)
    format = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    command = ["tar", "-S", "--hole-detection=raw", *format, "-c", "-C", str(folder), "a.jpg", "b.tif", "c.jpg"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make_seeds() -> Iterator[bytes]:
    plain = [(name, data) for name, data in _MEMBERS if len(name) < 100 and name.isascii()]
    yield tar_bytes(plain, format=tarfile.USTAR_FORMAT)
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield _with_links(format)
    yield tar_bytes(_MEMBERS, format=tarfile.PAX_FORMAT, pax_headers={"comment": "global", "path": ""})
    yield tar_bytes(plain) + tar_bytes(plain[:2])  # archives one behind the other
    with tempfile.TemporaryDirectory() as folder:
        for version in ("gnu", "0.0", "0.1", "1.0"):
            for pieces in (2, 5, 30):
                yield _sparse(Path(folder), version, pieces)


def damaged(seeds: list[bytes], first: int, number: int) -> bytes:
    """A copy of one of the files with one to six faults; checksums of headers are made to fit again in most of them."""
    random = np.random.default_rng((first, number))
    data = bytearray(seeds[random.integers(len(seeds))])
    for _ in range(random.integers(1, 7)):
        if len(data) < _BLOCK:
            break
        headers = _headers(data) or [0]
        header = headers[random.integers(len(headers))]
        match int(random.integers(6)):
            case 0:
                fault(random, data, int(random.integers(len(data))), seeds)
            case 1:
                fault(random, data, min(header + int(random.integers(_BLOCK)), len(data) - 1), seeds)
            case 2 | 3:
                start, end = _FIELDS[random.integers(len(_FIELDS))]
                value = _VALUES[random.integers(len(_VALUES))][: end - start]
                data[header + start : header + start + len(value)] = value
            case 4:
                _change_record(random, data, header)
            case _:
                _move_blocks(random, data)
    if random.integers(4):
        for header in _headers(data):
            _mend_checksum(data, header)
    return bytes(data)


def _headers(data: bytearray) -> list[int]:
    return [place for place in range(0, len(data) - _BLOCK + 1, _BLOCK) if data[place + 257 : place + 262] == b"ustar"]


def _mend_checksum(data: bytearray, header: int) -> None:
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + _BLOCK])


def _change_record(random: np.random.Generator, data: bytearray, header: int) -> None:
    """Write records behind a header and make it an extended header that has them."""
    chosen = (_RECORDS[random.integers(len(_RECORDS))] for _ in range(random.integers(1, 5)))
    body = b"".join(_record(content) for content in chosen)
    if random.integers(8) == 0:
        body = body[: random.integers(len(body))]
    extended = bytearray(data[header : header + _BLOCK])
    extended[124:136] = b"%011o\0" % len(body)
    extended[156:157] = (b"x", b"g", b"X")[random.integers(3)]
    data[header:header] = extended + body + bytes(-len(body) % _BLOCK)


def _record(content: bytes) -> bytes:
    length = len(content) + 2
    while len(str(length)) + len(content) + 2 != length:
        length += 1
    return b"%d %s\n" % (length, content)


def _move_blocks(random: np.random.Generator, data: bytearray) -> None:
    place, target = (_BLOCK * int(random.integers(len(data) // _BLOCK)) for _ in range(2))
    length = _BLOCK * int(random.integers(1, 5))
    blocks = data[place : place + length]
    match int(random.integers(4)):
        case 0:
            del data[place : place + length]
        case 1:
            data[target:target] = blocks
        case 2:
            data[place : place + length] = bytes(length)
        case _:
            if random.integers(3) == 0:
                del data[max(place + int(random.integers(_BLOCK)), 1) :]


def judge(path: Path, data: bytes) -> str:
    """ "ok", or that rows have problems. Raises for what a tar must not do."""
    path.write_bytes(data)
    source = Source(str(path), len(data), "", "tar")
    table = index_source(source)
    assert table.schema == INDEX
    rows = table.to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    assert len(rows) <= len(data) // _BLOCK + 1, "more rows than headers"
    for row in rows:
        if row["problem"] is not None:
            _check_problem(Problem.parse(row["problem"]))
        elif row["length"] != SPARSE_MEMBER:
            assert 0 <= row["offset"] <= row["offset"] + row["length"] <= len(data)
    fetched = fetch_rows(rows, max_bytes=MAX_BYTES)
    assert len(fetched) == len(rows)
    for row, found in zip(rows, fetched, strict=True):
        if isinstance(found, bytes):
            assert row["length"] in (len(found), SPARSE_MEMBER)
        else:
            _check_problem(found)
    return "ok" if all(isinstance(found, bytes) for found in fetched) else "problems"


def _check_problem(problem: Problem) -> None:
    assert problem.status in STATUSES, problem
    assert problem.reason.isprintable(), problem
    assert len(problem.reason) < 300, problem


def main(folder: Path, first: int, number: int) -> None:
    seeds = list(make_seeds())
    path = folder / "shard.tar"
    for data in seeds:
        judge(path, data)
    limit_memory(MEMORY)
    judge_copies(folder, range(number), partial(damaged, seeds, first), partial(judge, path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
