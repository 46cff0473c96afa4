"""Indexes damaged copies of small Parquet files and fetches their images: a folder, a seed, the first and last copy.

A process of its own: pyarrow may end it by a signal, and then the test asks whether the lake's own child survives that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from support.damage import fault, judge_copies, limit_memory
from support.lakes import parquet_of

from jobs.lake import Source, fetch_rows
from jobs.lake.index import index_source
from jobs.lake.source import INDEX, STATUSES, Problem
from jobs.runtime.errors import UsageError

#: bytes of address space above what the imports take; Arrow reserves much more than it uses
MEMORY = 4 << 30
MAX_BYTES = 1 << 20
#: rows that are fetched of one file: a footer may name any number of them
_FETCHED = 64
_COUNT = 40


#: numbers as they stand in a file, twice their value; odd ones are negative
_NUMBERS = (
    0,
    1,
    2,
    3,
    14,
    78,
    79,
    82,
    200,
    2**9,
    2**14,
    2**21,
    2**30,
    2**31,
    2**32 - 1,
    2**33,
    2**42,
    2**63,
    2**64 - 1,
)


def _varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def _images(count: int = _COUNT) -> list[bytes]:
    return [b"image %d " % i * (3 + i % 7) for i in range(count)]


def make_seeds() -> Iterator[bytes]:
    names = [f"name-{i:03d}.jpg" for i in range(_COUNT)]
    plain = pa.table({"image_id": names, "label": range(_COUNT), "image": _images()})
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        yield parquet_of(plain, compression=compression, row_group_size=15)
    yield parquet_of(plain, data_page_version="2.0", use_dictionary=False, write_page_checksum=True)
    yield parquet_of(plain, use_dictionary=False, column_encoding={"image": "DELTA_LENGTH_BYTE_ARRAY"})
    yield parquet_of(plain, use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"}, data_page_size=64)
    yield parquet_of(plain, write_page_index=True, compression="none", row_group_size=7)
    yield parquet_of(pa.table({"image": [None, *_images()[1:]]}), compression="none")
    structs = [{"bytes": data, "path": name} for data, name in zip(_images(), names, strict=True)]
    yield parquet_of(pa.table({"image": [*structs[:-1], None], "label": range(_COUNT)}))
    lists = [_images()[i : i + i % 4] for i in range(_COUNT)]
    yield parquet_of(pa.table({"id": range(_COUNT), "images": [*lists[:-1], None]}), row_group_size=9)
    yield parquet_of(pa.table({"images": [structs[i : i + i % 3] for i in range(_COUNT)]}), compression="none")
    yield parquet_of(pa.table({"image": pa.array(_images()).dictionary_encode(), "key": names}))
    yield parquet_of(pa.table({"image": pa.array(_images(), pa.large_binary()), "key": names}))
    yield parquet_of(pa.table({"image": pa.array([b"%099d" % i for i in range(_COUNT)], pa.binary(99))}))
    yield parquet_of(pa.table({"path": names, "number": range(_COUNT)}))  # no bytes at all


def damaged(seeds: list[bytes], first: int, number: int) -> bytes:
    """A copy of one of the files with one to six faults, half of them in its footer; its length mostly stays right."""
    random = np.random.default_rng((first, number))
    data = bytearray(seeds[random.integers(len(seeds))])
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    for _ in range(random.integers(1, 7)):
        part = (body, footer)[random.integers(2)]
        if len(part) < 16:
            continue
        place = int(random.integers(len(part)))
        match int(random.integers(4)):
            case 0:
                fault(random, part, place, seeds)
            case 1:
                part[place] = (part[place] + int(random.integers(-3, 4))) % 256
            case _:
                # headers of pages and the footer hold numbers as varints: a byte is often a whole number
                part[place : place + 1] = _varint(_NUMBERS[random.integers(len(_NUMBERS))])
    tail = bytearray(len(footer).to_bytes(4, "little") + b"PAR1")
    if random.integers(20) == 0:
        fault(random, tail, int(random.integers(8)), seeds)
    return bytes(body + footer + tail)


def judge(path: Path, data: bytes) -> str:
    """ "ok", or how the file is turned down. Raises for what a Parquet file must not do."""
    path.write_bytes(data)
    source = Source(str(path), len(data), "", "parquet")
    # the columns of an intact file are found without options; a damaged name or type may need them
    try:
        rows = check_index(source)
    except UsageError as error:
        return "refused" if str(error).isprintable() else f"no one line: {error}"
    found = check_fetched(rows, fetch_rows(rows, max_bytes=MAX_BYTES))
    return "ok" if found else "problems"


def check_index(source: Source) -> list[dict]:
    """The first rows of the index, all of them checked. Raises UsageError as the index does."""
    table = index_source(source)
    assert table.schema == INDEX
    assert len(table) <= max(source.size, 1), "more rows than bytes"
    ids = table["image_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    for text in table["problem"].drop_null().to_pylist():
        check_problem(Problem.parse(text))
    return table.slice(0, _FETCHED).to_pylist()


def check_fetched(rows: list[dict], fetched: list[bytes | Problem]) -> bool:
    """Whether all rows have bytes; those that have none must have a problem that is fit for a row."""
    assert len(fetched) == len(rows)
    for found in fetched:
        if not isinstance(found, bytes):
            check_problem(found)
    return all(isinstance(found, bytes) for found in fetched)


def check_problem(problem: Problem) -> None:
    assert problem.status in STATUSES, problem
    assert problem.reason.isprintable(), problem
    assert len(problem.reason) < 300, problem


def judge_numbered(folder: Path, seeds: list[bytes], first: int, copies: range) -> None:
    """Every copy under a name of its own: the lake keeps footers and columns by the name of their file."""
    limit_memory(MEMORY)
    names = iter(copies)

    def judge_next(data: bytes) -> str:
        path = folder / f"{next(names)}.parquet"
        try:
            return judge(path, data)
        finally:
            path.unlink()

    judge_copies(folder, copies, partial(damaged, seeds, first), judge_next)


def main(folder: Path, first: int, start: int, end: int) -> None:
    seeds = list(make_seeds())
    if start == 0:
        for number, data in enumerate(seeds):
            judge(folder / f"seed-{number}.parquet", data)
    judge_numbered(folder, seeds, first, range(start, end))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
