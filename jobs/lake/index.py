"""A source as index rows."""

from __future__ import annotations

import pyarrow as pa

from jobs.lake.parquet_rows import index_parquet
from jobs.lake.source import IndexRows, ParquetColumns, Problem, Source, image_rows, is_hidden, kind_of
from jobs.lake.tar_index import read_members
from jobs.storage import ObjectChangedError, ObjectMissingError, Retry, StorageError, TransientStorageError


def index_source(source: Source, columns: ParquetColumns | None = None, *, retry: Retry | None = None) -> pa.Table:
    """One row of `INDEX` per image of the source, in its own order; ids are unique within it.

    Of a tar, every member with an image's extension counts, wherever it stands; others and hidden ones are passed over.
    A source that cannot be read for good gives one row that says why. Raises TransientStorageError, and UsageError for
    a Parquet file whose columns cannot be told.
    """
    retry = retry or Retry()
    try:
        if source.kind == "image":
            return image_rows([source])
        return (
            index_parquet(source, columns or ParquetColumns(), retry)
            if source.kind == "parquet"
            else _index_tar(source, retry)
        )
    except TransientStorageError:
        raise
    except ObjectMissingError as error:
        problem = Problem("missing", f"it was listed, and is not there any more ({error})")
    except ObjectChangedError:
        problem = Problem("changed", "the object was replaced while it was being indexed")
    except StorageError as error:
        problem = Problem("unreadable", str(error))
    rows = IndexRows(source)
    rows.add(None, 0, 0, problem)
    return rows.table()


def _index_tar(source: Source, retry: Retry) -> pa.Table:
    rows = IndexRows(source)
    for member in read_members(source, retry):
        if member.name is None or (kind_of(member.name) == "image" and not is_hidden(member.name)):
            rows.add(member.name, member.offset, member.length, member.problem)
    return rows.table()
