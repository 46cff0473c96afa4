"""Images in Parquet files: the index of a file, and the bytes of some of its values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.parquet_columns import Leaf, UnusableFileError, find_columns, leaves, listing, values_of
from jobs.lake.source import IN_PARQUET, IndexRows, ParquetColumns, Problem, Source
from jobs.storage import RangeFile, Retry, one_line

#: what Arrow raises for a file it cannot make sense of, also names that are no UTF-8; storage errors pass through it
#: unchanged
CORRUPT = (pa.ArrowException, OSError, UnicodeDecodeError)
_READ_BYTES = 4 << 20
_ROWS_AT_ONCE = 16
#: bytes of row groups that are kept for the next unit, which often needs other rows of them
_KEPT_BYTES = 128 << 20
_KEPT_FOOTERS = 4


class _KeptColumns:
    """The columns of bytes of the row groups that were read last, of at most `_KEPT_BYTES` together.

    Safe to use from several threads. Two threads that want the same row group at the same time may both read it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: OrderedDict[tuple[object, ...], tuple[int, pa.ChunkedArray]] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> pa.ChunkedArray | None:
        with self._lock:
            if key not in self._columns:
                return None
            self._columns.move_to_end(key)
            return self._columns[key][1]

    def make_room(self, size: int) -> None:
        """Drop the columns that were used longest ago until `size` more bytes may be kept."""
        with self._lock:
            while self._columns and sum(kept for kept, _ in self._columns.values()) + size > _KEPT_BYTES:
                self._columns.popitem(last=False)

    def put(self, key: tuple[object, ...], size: int, column: pa.ChunkedArray) -> None:
        self.make_room(size)
        with self._lock:
            self._columns[key] = (size, column)


_kept = _KeptColumns()


def index_parquet(source: Source, columns: ParquetColumns, retry: Retry) -> pa.Table:
    """One index row per row of the file, or per value where the images stand in lists (then with [0], [1] … in its id).

    Rows without an id, and files without such a column, count from 0. A file without a column of image bytes gives no
    row, and `passed_over` of the table says so. Raises UsageError where options must say which columns are meant, and
    what `jobs.storage` raises.
    """
    rows = IndexRows(source)
    try:
        file = _open(source.uri, source.size, source.etag, retry)
        found = find_columns(file.schema_arrow, columns, source.uri)
        if found.image is None:
            rows.pass_over("Parquet without image bytes", listing(leaves(file.schema_arrow)))
        else:
            _index_rows(file, found.image, found.id, rows)
    except UnusableFileError as error:
        rows.add(None, 0, 0, error.problem)
    except CORRUPT as error:
        rows = IndexRows(source)
        rows.add(None, 0, 0, _corrupt(error, "no readable Parquet file"))
    return rows.table()


def _is_encrypted(error: Exception) -> bool:
    return "decrypt" in str(error).lower()


def _corrupt(error: Exception, otherwise: str) -> Problem:
    text = one_line(str(error), 160)
    if _is_encrypted(error):
        return Problem("unsupported", f"the Parquet file, or its column of images, is encrypted ({text})")
    return Problem("undecodable", f"{otherwise}: {text}")


def _index_rows(file: pq.ParquetFile, image: Leaf, id: Leaf | None, rows: IndexRows) -> None:
    if image.in_list:
        _index_lists(file, image, id, rows)
        return
    _check_key(file, image)
    for number, name in enumerate(_ids(file, id)):
        rows.add(str(number) if name is None else name, number, IN_PARQUET)


def _check_key(file: pq.ParquetFile, image: Leaf) -> None:
    """Raises Arrow's error for a column that is encrypted: its first value shows it, before anything is labelled."""
    try:
        next(file.iter_batches(batch_size=1, row_groups=[0][: file.num_row_groups], columns=[_path(file, image)]), None)
    except CORRUPT as error:
        if _is_encrypted(error):
            raise


def _index_lists(file: pq.ParquetFile, image: Leaf, id: Leaf | None, rows: IndexRows) -> None:
    """Parquet stores the lengths of lists together with their bytes, so the whole column is read."""
    ids = _ids(file, id)
    number = 0
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[_path(file, image)]):
        for row in range(batch.num_rows):
            name = next(ids)
            for place, value in enumerate(values_of(batch.column(image.top).slice(row, 1), image)):
                if value.is_valid:
                    rows.add(f"{rows.count if name is None else name}[{place}]", number, IN_PARQUET)
                number += 1


def fetch_parquet(
    uri: str, size: int, etag: str, numbers: Sequence[int], columns: ParquetColumns, retry: Retry
) -> dict[int, bytes | Problem]:
    """The image bytes of some values of the column of images. `numbers` are their positions in that column.

    Without lists, the position is the row number. In lists, each value counts, and a null or empty list counts as one
    value. Reads only the column of bytes, from the row groups that hold such values. Row groups of up to `_KEPT_BYTES`
    are kept in memory for the next call; larger ones are read again, up to the last value of `numbers`.
    """
    found: dict[int, bytes | Problem] = dict.fromkeys(numbers, Problem("undecodable", "the row holds no image bytes"))
    try:
        file = _open(uri, size, etag, retry)
        image = find_columns(file.schema_arrow, columns, uri).image
        if image is None:
            return dict.fromkeys(numbers, Problem("unsupported", "the file has no column of image bytes"))
        for group, first, wanted in _row_groups(file.metadata, image, sorted(found)):
            column = _kept_column(file, group, image, (uri, size, etag, group, image.number))
            if column is not None:
                found |= _values_at(column, first, wanted)
            else:
                found |= _read_rows(file, group, image, first, wanted)
    except UnusableFileError as error:
        return dict.fromkeys(numbers, error.problem)
    except CORRUPT as error:
        problem = _corrupt(error, "corrupt Parquet data")
        return {number: data if isinstance(data, bytes) else problem for number, data in found.items()}
    return found


def _row_groups(metadata: pq.FileMetaData, image: Leaf, wanted: list[int]) -> Iterator[tuple[int, int, list[int]]]:
    """(row group, number of its first value, wanted values in it) for the row groups that hold any."""
    first = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # pyarrow ends the process if a column's metadata is encrypted. So only columns of lists are asked: they were
        # read in full when they were indexed
        after = first + (group.column(image.number).num_values if image.in_list else group.num_rows)
        if here := [value for value in wanted if first <= value < after]:
            yield number, first, here
        first = after


def _kept_column(file: pq.ParquetFile, group: int, image: Leaf, key: tuple[object, ...]) -> pa.ChunkedArray | None:
    """The values of one row group, read or kept from an earlier call; None if they are too large to keep."""
    if (column := _kept.get(key)) is not None:
        return column
    size = file.metadata.row_group(group).total_byte_size
    if size > _KEPT_BYTES:
        return None
    _kept.make_room(size)
    batches = file.read_row_group(group, columns=[_path(file, image)]).to_batches()
    column = pa.chunked_array([values_of(batch.column(image.top), image) for batch in batches], image.kind)
    _kept.put(key, size, column)
    return column


def _read_rows(file: pq.ParquetFile, group: int, image: Leaf, first: int, wanted: list[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[group], columns=[_path(file, image)]):
        values = values_of(batch.column(image.top), image)
        found |= _values_at(values, first, wanted)
        first += len(values)
        if first > wanted[-1]:
            break
    return found


def _values_at(values: pa.Array | pa.ChunkedArray, first: int, wanted: Sequence[int]) -> dict[int, bytes]:
    """The wanted values that are among `values`, of which `first` is the number of the first one; nulls are left out.

    The pages of a damaged file may hold fewer values than its footer says.
    """
    here = (number for number in wanted if first <= number < first + len(values))
    return {number: data for number in here if (data := values[number - first].as_py()) is not None}


def _path(file: pq.ParquetFile, leaf: Leaf) -> str:
    """The column's name in the file itself, which names the lists on the way too."""
    return str(file.schema.column(leaf.number).path)


def _ids(file: pq.ParquetFile, column: Leaf | None) -> Iterator[str | None]:
    """The id of each row; None where it has none."""
    if column is None:
        yield from [None] * file.metadata.num_rows
        return
    for batch in file.iter_batches(columns=[_path(file, column)]):
        for value in values_of(batch.column(column.top), column):
            yield _text(value)


def _text(value: pa.Scalar) -> str | None:
    """A string or a number as text; bytes that are no UTF-8 as surrogates, as in names of files."""
    try:
        id = value.as_py()
    except UnicodeDecodeError:
        text = value.value if isinstance(value, pa.DictionaryScalar) else value
        return bytes(text.as_buffer()).decode("utf-8", "surrogateescape")
    return None if id is None else str(id)


def read_column(uri: str, size: int, etag: str, column: Leaf, retry: Retry) -> Iterator[str | None]:
    """The values of a column of strings, row by row. Raises what Arrow and `jobs.storage` raise."""
    return _ids(_open(uri, size, etag, retry), column)


def schema_of(uri: str, size: int, etag: str, retry: Retry) -> pa.Schema:
    """The schema of a file, from its footer. Raises what Arrow and `jobs.storage` raise."""
    return _open(uri, size, etag, retry).schema_arrow


def _open(uri: str, size: int, etag: str, retry: Retry) -> pq.ParquetFile:
    file = RangeFile(uri, size, etag or None, retry)
    footer = _footers.of(uri, size, etag, retry)
    return pq.ParquetFile(file, metadata=footer, buffer_size=_READ_BYTES, pre_buffer=False)


class _Footers:
    """The footers that were read last: neighbouring units of a file come to the same worker one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, str], pq.FileMetaData] = OrderedDict()

    def of(self, uri: str, size: int, etag: str, retry: Retry) -> pq.FileMetaData:
        """The footer of an object, read within the caller's retries where it is not kept."""
        with self._lock:
            found = self._kept.get((uri, size, etag))
        if found is None:
            found = pq.read_metadata(RangeFile(uri, size, etag or None, retry))
        with self._lock:
            self._kept[uri, size, etag] = found
            self._kept.move_to_end((uri, size, etag))
            while len(self._kept) > _KEPT_FOOTERS:
                self._kept.popitem(last=False)
        return found


_footers = _Footers()
