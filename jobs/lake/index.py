"""A source as index rows."""

from __future__ import annotations

import pyarrow as pa

from jobs.lake.child import ChildDiedError, call_in_child
from jobs.lake.parquet_rows import index_parquet
from jobs.lake.passed_over import extension_of, is_other_image
from jobs.lake.refusal import read_unless_refused
from jobs.lake.source import (
    SPARSE_MEMBER,
    IndexRows,
    ParquetColumns,
    Problem,
    Source,
    as_problem,
    image_rows,
    is_hidden,
    kind_of,
)
from jobs.lake.tar_index import read_members
from jobs.storage import Retry, StorageError


def index_in_child(source: Source, columns: ParquetColumns) -> pa.Table:
    """`index_source` in a child process. A source that kills the child gives one row that says so."""
    try:
        return call_in_child(index_source, None, source, columns)
    except ChildDiedError:
        rows = IndexRows(source)
        rows.add(None, 0, 0, Problem("undecodable", "the file killed the process that read it"))
        return rows.table()


def index_source(source: Source, columns: ParquetColumns | None = None, *, retry: Retry | None = None) -> pa.Table:
    """One row of `INDEX` per image of the source, in its own order; ids are unique within it.

    Every member of a tar with an image's extension counts, in any folder of it; hidden and other members are passed
    over. A source with a permanent failure gives one row that says why. Raises TransientStorageError, and UsageError
    for a Parquet file whose columns are not clear.
    """
    retry = retry or Retry()
    try:
        return read_unless_refused(
            lambda retry: _index(source, columns or ParquetColumns(), retry), source.uri, retry=retry
        )
    except StorageError as error:
        problem = as_problem(error)
    rows = IndexRows(source)
    rows.add(None, 0, 0, problem)
    return rows.table()


def _index(source: Source, columns: ParquetColumns, retry: Retry) -> pa.Table:
    if source.kind == "image":
        return image_rows([source])
    return index_parquet(source, columns, retry) if source.kind == "parquet" else _index_tar(source, retry)


def _index_tar(source: Source, retry: Retry) -> pa.Table:
    rows = IndexRows(source)
    for member in read_members(source, retry):
        if member.name is not None and is_hidden(member.name):
            continue
        if member.name is not None and is_other_image(member.name):
            rows.pass_over(extension_of(member.name))
        elif member.name is None or kind_of(member.name) == "image":
            if member.sparse is None or member.problem is not None:
                rows.add(member.name, member.offset, member.length, member.problem)
            else:
                rows.add(member.name, member.header, SPARSE_MEMBER)
    return rows.table()
