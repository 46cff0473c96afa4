"""The bytes of the images of one unit: few requests, every length checked, permanent failures as problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from jobs.lake.child import ChildDiedError, call_in_child
from jobs.lake.parquet_rows import fetch_parquet
from jobs.lake.refusal import read_unless_refused
from jobs.lake.source import (
    IN_PARQUET,
    SPARSE_MEMBER,
    UNKNOWN_LENGTH,
    ParquetColumns,
    Problem,
    Source,
    as_problem,
)
from jobs.lake.tar_index import read_sparse_member
from jobs.storage import Retry, StorageError, is_local, object_info, read_bytes, read_range

#: a gap of this many bytes between neighbouring members costs less than another request
_GAP_BYTES = 1 << 20
_REQUEST_BYTES = 64 << 20
_THREADS = 16

#: a row of the index: the columns of `INDEX`, and any others
Row = Mapping[str, Any]
Fetched = bytes | Problem


@dataclass(frozen=True)
class _Wish:
    """The settings of one call. `others` are URIs that are read to find out whether the store refuses everything."""

    columns: ParquetColumns
    max_bytes: int
    others: tuple[str, ...]
    in_child: bool


def fetch_rows(
    rows: Sequence[Row],
    *,
    max_bytes: int,
    columns: ParquetColumns | None = None,
    retry: Retry | None = None,
    others: Sequence[str] = (),
    in_child: bool = False,
) -> list[Fetched]:
    """The encoded bytes of each index row, or what is wrong with it, in the order of `rows`.

    One request fetches neighbouring members of a tar. Whole objects are fetched several at a time, Parquet rows by row
    group. Images of more than `max_bytes` are not requested. A row is a whole object if its offset and length are None,
    or if its length is UNKNOWN_LENGTH. `retry.counts` holds the repeated attempts afterwards.

    A transient failure never becomes a problem: when the retries are used up, this raises TransientStorageError. An
    object that the store refuses (HTTP 403) becomes a problem if another object of that store can be read. `others` are
    URIs that may be read to find this out, besides those of `rows`. With `in_child`, Parquet is read in a child
    process, so that a file that kills its reader becomes a problem.
    """
    retry, columns = retry or Retry(), columns or ParquetColumns()
    fetched: list[Fetched | None] = [_known_problem(row, max_bytes) for row in rows]
    groups = list(_groups(rows, [number for number, known in enumerate(fetched) if known is None]))
    wish = _Wish(columns, max_bytes, (*dict.fromkeys(row["uri"] for row in rows), *others), in_child)

    def answer(group: Sequence[int]) -> list[Fetched]:
        return _read([rows[number] for number in group], wish, retry)

    for group, answers in zip(groups, _side_by_side(answer, groups, rows), strict=True):
        for number, data in zip(group, answers, strict=True):
            fetched[number] = _within(data, max_bytes)
    return [data for data in fetched if data is not None]


def _known_problem(row: Row, max_bytes: int) -> Problem | None:
    if row.get("problem") is not None:
        return Problem.parse(row["problem"])
    return _too_large(row["length"], max_bytes) if (row["length"] or 0) > max_bytes else None


def _within(data: Fetched, max_bytes: int) -> Fetched:
    return _too_large(len(data), max_bytes) if isinstance(data, bytes) and len(data) > max_bytes else data


def _too_large(length: int, max_bytes: int) -> Problem:
    return Problem("too_large", f"{length} bytes, {max_bytes} allowed")


def _is_whole(row: Row) -> bool:
    if row["offset"] is None or row["length"] == UNKNOWN_LENGTH:
        return True
    return bool(row["offset"] == 0 and row["length"] == row["size"])


def _is_parquet(row: Row) -> bool:
    return bool(row["length"] == IN_PARQUET)


def _groups(rows: Sequence[Row], wanted: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers that are fetched together: one object, or one stretch of a tar."""
    parquet: dict[str, list[int]] = {}
    members: dict[str, list[int]] = {}
    for number in wanted:
        row = rows[number]
        if _is_whole(row) or row["length"] == SPARSE_MEMBER:
            yield [number]
        else:
            (parquet if _is_parquet(row) else members).setdefault(row["uri"], []).append(number)
    yield from parquet.values()
    for numbers in members.values():
        yield from _stretches(rows, sorted(numbers, key=lambda number: rows[number]["offset"]))


def _stretches(rows: Sequence[Row], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Cut the members of one shard, sorted by offset, where a gap is wide or a request would become too large."""
    stretch: list[int] = []
    start = end = 0
    for number in numbers:
        offset, length = rows[number]["offset"], rows[number]["length"]
        if stretch and (offset - end > _GAP_BYTES or offset + length - start > _REQUEST_BYTES):
            yield stretch
            stretch = []
        if not stretch:
            start = end = offset
        stretch.append(number)
        end = max(end, offset + length)
    yield stretch


def _side_by_side(answer: Any, groups: Sequence[list[int]], rows: Sequence[Row]) -> Iterator[list[Fetched]]:
    """Remote requests wait for the network, so several run at the same time; a local disk is read in order."""
    if len(groups) < 2 or is_local(rows[groups[0][0]]["uri"]):
        yield from map(answer, groups)
        return
    with ThreadPoolExecutor(min(_THREADS, len(groups))) as pool:
        try:
            yield from pool.map(answer, groups)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(rows: Sequence[Row], wish: _Wish, retry: Retry) -> list[Fetched]:
    """Fetch one group. A permanent failure of its object is a problem of all its images."""
    try:
        return read_unless_refused(
            lambda retry: _read_group(rows, wish, retry), rows[0]["uri"], others=wish.others, retry=retry
        )
    except StorageError as error:
        return [as_problem(error)] * len(rows)


def _read_group(rows: Sequence[Row], wish: _Wish, retry: Retry) -> list[Fetched]:
    first = rows[0]
    if _is_whole(first):
        return [_read_whole(first, wish.max_bytes, retry)]
    if first["length"] == SPARSE_MEMBER:
        shard = Source(first["uri"], first["size"], first["etag"], "tar")
        return [read_sparse_member(shard, first["offset"], wish.max_bytes, retry)]
    return _read_parquet(rows, wish, retry) if _is_parquet(first) else _read_members(rows, retry)


def _read_whole(row: Row, max_bytes: int, retry: Retry) -> Fetched:
    uri, size, etag = row["uri"], row["size"], row["etag"] or None
    if size is None or size < 0:  # from a list: ask for the size before the bytes
        found = object_info(uri, retry=retry)
        size, etag = found.size if found.size >= 0 else None, etag or found.etag
        if size is not None and size > max_bytes:
            return _too_large(size, max_bytes)
    return read_bytes(uri, etag=etag, size=size, retry=retry)


def _read_members(rows: Sequence[Row], retry: Retry) -> list[Fetched]:
    start = rows[0]["offset"]
    end = max(row["offset"] + row["length"] for row in rows)
    data = memoryview(read_range(rows[0]["uri"], start, end - start, etag=rows[0]["etag"] or None, retry=retry))
    return [bytes(data[row["offset"] - start : row["offset"] - start + row["length"]]) for row in rows]


def _read_parquet(rows: Sequence[Row], wish: _Wish, retry: Retry) -> list[Fetched]:
    numbers = [row["offset"] for row in rows]
    file = rows[0]["uri"], rows[0]["size"], rows[0]["etag"]
    if not wish.in_child:
        found = fetch_parquet(*file, numbers, wish.columns, retry)
        return [found[number] for number in numbers]
    try:
        found = call_in_child(fetch_parquet, None, *file, numbers, wish.columns, retry)
    except ChildDiedError:
        return [Problem("undecodable", "the Parquet file killed the process that read it")] * len(rows)
    return [found[number] for number in numbers]
