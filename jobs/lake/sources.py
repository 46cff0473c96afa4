"""Many sources in an Arrow table: lists of Python objects would take 350 bytes and more for each object of the lake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.source import Source
from jobs.storage import ObjectInfo

SOURCE_COLUMNS = pa.schema(
    [("uri", pa.large_string()), ("size", pa.int64()), ("etag", pa.large_string()), ("kind", pa.string())]
)

_AT_ONCE = 65_536


class ObjectTable:
    """Objects of a listing in Arrow, until they are sorted: some 150 bytes each."""

    _SCHEMA = pa.schema([("uri", pa.large_string()), ("size", pa.int64()), ("etag", pa.large_string())])

    def __init__(self) -> None:
        self._pieces = [self._SCHEMA.empty_table()]
        self._latest: list[ObjectInfo] = []

    def add(self, item: ObjectInfo) -> None:
        """Add an object."""
        self._latest.append(item)
        if len(self._latest) >= _AT_ONCE:
            self._put_away()

    def __len__(self) -> int:
        return sum(piece.num_rows for piece in self._pieces) + len(self._latest)

    def in_order(self) -> Iterator[ObjectInfo]:
        """The objects, sorted by URI. They are given once: the table is empty afterwards."""
        self._put_away()
        ordered = pa.concat_tables(self._pieces).sort_by("uri")
        self._pieces = [self._SCHEMA.empty_table()]
        for batch in ordered.to_batches(max_chunksize=_AT_ONCE):
            yield from map(ObjectInfo, *(column.to_pylist() for column in batch.columns))

    def _put_away(self) -> None:
        self._pieces.append(_as_table(self._latest, self._SCHEMA))
        self._latest = []


def _as_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


class SourceTable(Sequence[Source]):
    """Sources as rows of `SOURCE_COLUMNS`. It is read like a list, and equal to a list of the same sources."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, sources: Iterable[Source]) -> SourceTable:
        """The sources in their order. Memory beside the table: some ten thousand of them at a time."""
        if isinstance(sources, SourceTable):
            return sources
        waiting = iter(sources)
        pieces = [SOURCE_COLUMNS.empty_table()]
        while chunk := list(islice(waiting, _AT_ONCE)):
            pieces.append(_as_table(chunk, SOURCE_COLUMNS))
        return cls(pa.concat_tables(pieces))

    def each_once(self) -> SourceTable:
        """The first source of every URI, in the same order."""
        uris = self.table["uri"]
        if len(uris) < 2 or pc.all(pc.less(uris[:-1], uris[1:])).as_py():
            return self
        rows = self.table.select(["uri"]).append_column("row", pa.array(np.arange(len(uris))))
        is_first = np.zeros(len(uris), bool)
        is_first[rows.group_by("uri").aggregate([("row", "min")])["row_min"].to_numpy()] = True
        return SourceTable(self.table.filter(pa.array(is_first)))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Source: ...
    @overload
    def __getitem__(self, place: slice) -> SourceTable: ...
    def __getitem__(self, place: int | slice) -> Source | SourceTable:
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            if step == 1:
                return SourceTable(self.table.slice(first, max(0, last - first)))
            return SourceTable.of(self[number] for number in range(first, last, step))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        (row,) = self.table.slice(place % len(self), 1).to_pylist()
        return Source(**row)

    def __iter__(self) -> Iterator[Source]:
        for batch in self.table.to_batches(max_chunksize=_AT_ONCE):
            yield from map(Source, *(column.to_pylist() for column in batch.columns))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SourceTable):
            return bool(self.table.equals(other.table))
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SourceTable({list(self[:3])}{', …' if len(self) > 3 else ''}, {len(self)} sources)"
