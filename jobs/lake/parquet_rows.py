"""Images in Parquet files: which columns hold them, the index of a file, and the bytes of some of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.source import IndexRows, ParquetColumns, Problem, Source
from jobs.runtime.errors import UsageError
from jobs.storage import RangeFile, Retry, one_line

#: names that say what they hold, best first; where only one column has bytes its name does not matter
_IMAGE_NAMES = ("image", "bytes", "image_bytes", "img", "jpg", "jpeg", "png", "webp", "picture", "content", "data")
_ID_NAMES = ("image_id", "id", "__key__", "key", "path", "file_name", "filename", "name", "uri", "url")
#: what Arrow raises for a file it cannot make sense of; storage errors pass through it unchanged
_CORRUPT = (pa.ArrowException, OSError)
_READ_BYTES = 4 << 20
_ROWS_AT_ONCE = 16
#: a row group of at most so many bytes is kept for the next unit, which often wants other rows of it
_KEPT_BYTES = 128 << 20
_kept: dict[tuple[object, ...], pa.ChunkedArray] = {}


def index_parquet(source: Source, columns: ParquetColumns, retry: Retry) -> pa.Table:
    """One index row per row of the file. Rows without an id, and files without such a column, count from 0.

    Raises UsageError where the columns cannot be told, and what `jobs.storage` raises.
    """
    rows = IndexRows(source)
    try:
        file = _open(source.uri, source.size, source.etag, retry)
        found = find_columns(file.schema_arrow, columns, source.uri)
        for number, value in enumerate(_ids(file, found.id)):
            rows.add(str(number) if value is None else value, number, -1)
    except _CORRUPT as error:
        rows = IndexRows(source)
        rows.add(None, 0, 0, Problem("undecodable", f"no readable Parquet file: {one_line(str(error), 160)}"))
    return rows.table()


def fetch_parquet(
    uri: str, size: int, etag: str, numbers: Sequence[int], columns: ParquetColumns, retry: Retry
) -> dict[int, bytes | Problem]:
    """The image bytes of some rows of a file, by row number.

    Reads only the column of bytes, from the row groups that hold such rows. The last row group is kept in memory for
    the next call if it is not too large; a larger one is read again, up to the last row that is wanted.
    """
    found: dict[int, bytes | Problem] = dict.fromkeys(numbers, Problem("undecodable", "the row holds no image bytes"))
    try:
        file = _open(uri, size, etag, retry)
        image = find_columns(file.schema_arrow, columns, uri).image
        assert image is not None
        for group, first, wanted in _row_groups(file.metadata, sorted(found)):
            column = _kept_column(file, group, image, (uri, size, etag, group, image))
            if column is not None:
                found |= {n: data for n in wanted if (data := column[n - first].as_py()) is not None}
            else:
                found |= _read_rows(file, group, image, first, wanted)
    except _CORRUPT as error:
        problem = Problem("undecodable", f"corrupt Parquet data: {one_line(str(error), 160)}")
        return {number: data if isinstance(data, bytes) else problem for number, data in found.items()}
    return found


def _row_groups(metadata: pq.FileMetaData, wanted: list[int]) -> Iterator[tuple[int, int, list[int]]]:
    """(row group, number of its first row, wanted rows in it) for the row groups that hold any."""
    first = 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        if here := [number for number in wanted if first <= number < after]:
            yield group, first, here
        first = after


def _kept_column(file: pq.ParquetFile, group: int, image: str, key: tuple[object, ...]) -> pa.ChunkedArray | None:
    """The column of bytes of one row group, read or kept from the last call; None if it is too large to keep."""
    if key in _kept:
        return _kept[key]
    _kept.clear()
    chunk = next(c for c in _column_chunks(file.metadata.row_group(group)) if c.path_in_schema == image)
    if chunk.total_uncompressed_size > _KEPT_BYTES:
        return None
    batches = file.read_row_group(group, columns=[image]).to_batches()
    column = pa.chunked_array([_leaf(batch, image) for batch in batches] or [pa.array([], pa.binary())])
    _kept[key] = column
    return column


def _column_chunks(group: pq.RowGroupMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    return (group.column(number) for number in range(group.num_columns))


def _read_rows(file: pq.ParquetFile, group: int, image: str, first: int, wanted: list[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[group], columns=[image]):
        values = _leaf(batch, image)
        for number in wanted:
            if first <= number < first + len(values) and (data := values[number - first].as_py()) is not None:
                found[number] = data
        first += len(values)
        if first > wanted[-1]:
            break
    return found


def find_columns(schema: pa.Schema, columns: ParquetColumns, uri: str) -> ParquetColumns:
    """The columns to use, `columns.id` None where there is none; raises UsageError where it cannot be told."""
    leaves = dict(_leaves(schema))
    image = _image_column(leaves, columns.image, uri)
    if columns.id is not None and not _is_id(leaves.get(columns.id)):
        raise UsageError(f"{uri}: --id-column {columns.id} is no column of strings or integers; {_listing(leaves)}")
    beside = f"{image.rpartition('.')[0]}.path"
    names = [columns.id] if columns.id is not None else [*_ID_NAMES, beside]
    return ParquetColumns(image, next((name for name in names if _is_id(leaves.get(name))), None))


def _image_column(leaves: dict[str, pa.DataType], chosen: str | None, uri: str) -> str:
    with_bytes = [name for name, kind in leaves.items() if _is_bytes(kind)]
    if chosen is not None:
        for name in (chosen, f"{chosen}.bytes"):
            if name in with_bytes:
                return name
        raise UsageError(f"{uri}: --image-column {chosen} is no column of bytes; {_listing(leaves)}")
    if len(with_bytes) == 1:
        return with_bytes[0]
    for name in _IMAGE_NAMES:
        for candidate in (name, f"{name}.bytes"):
            if candidate in with_bytes:
                return candidate
    what = "which column holds the images is not clear" if with_bytes else "there is no column of image bytes"
    raise UsageError(f"{uri}: {what}; {_listing(leaves)}; name it with --image-column")


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Columns, and the fields of columns that are structs (Hugging Face's {bytes, path})."""
    for field in schema:
        if pa.types.is_struct(field.type):
            yield from ((f"{field.name}.{inner.name}", inner.type) for inner in field.type)
        else:
            yield field.name, field.type


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_id(kind: pa.DataType | None) -> bool:
    if kind is None:
        return False
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_integer(kind))


def _listing(leaves: dict[str, pa.DataType]) -> str:
    return "it has " + ", ".join(f"{name} ({kind})" for name, kind in leaves.items())


def _ids(file: pq.ParquetFile, column: str | None) -> Iterator[str | None]:
    if column is None:
        yield from [None] * file.metadata.num_rows
        return
    for batch in file.iter_batches(columns=[column]):
        for value in _leaf(batch, column):
            id = value.as_py()
            yield None if id is None else str(id)


def _leaf(batch: pa.RecordBatch, column: str) -> pa.Array:
    if column in batch.schema.names:
        return batch.column(column)
    outer, _, inner = column.partition(".")
    return batch.column(outer).field(inner)


def _open(uri: str, size: int, etag: str, retry: Retry) -> pq.ParquetFile:
    file = RangeFile(uri, size, etag or None, retry)
    return pq.ParquetFile(file, metadata=_footer(uri, size, etag), buffer_size=_READ_BYTES, pre_buffer=False)


@lru_cache(maxsize=4)
def _footer(uri: str, size: int, etag: str) -> pq.FileMetaData:
    # neighbouring units of a file come to the same worker one after the other
    return pq.read_metadata(RangeFile(uri, size, etag or None, Retry()))
