"""Tables and text files that name images: one URI a line, or in a column of CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

from jobs.lake.parquet_columns import URI_NAMES, Leaf, UnusableFileError, find_columns, find_uri_column
from jobs.lake.parquet_rows import CORRUPT, read_column, schema_of
from jobs.lake.patterns import normalised
from jobs.lake.source import ParquetColumns, kind_of
from jobs.runtime.errors import UsageError
from jobs.storage import (
    ObjectInfo,
    Retry,
    beside,
    has_scheme,
    holds_credentials,
    one_line,
    read_bytes,
    without_credentials,
)

TEXT_EXTENSIONS = (".txt", ".lst", ".list", ".csv", ".tsv", ".jsonl", ".ndjson")


def is_text_list(uri: str) -> bool:
    """Whether an object has the name of a text file. Such a file is a list of URIs if it is an INPUT."""
    return uri.lower().endswith(TEXT_EXTENSIONS)


def uri_column(item: ObjectInfo, columns: ParquetColumns, retry: Retry) -> Leaf | None:
    """The column of addresses in a Parquet file without image bytes; None for a file with image bytes.

    If `columns.image` names a column of strings, that column wins. Also None for an object that is no Parquet file.
    """
    try:
        schema = schema_of(item.uri, item.size, item.etag, retry)
        if find_columns(schema, ParquetColumns(columns.image), item.uri).image is not None:
            return None
    except UsageError:  # the file has columns of bytes, but it is not clear which one holds the images
        return None if columns.image is None else find_uri_column(schema, columns.image)
    except (UnusableFileError, *CORRUPT):
        return None
    return find_uri_column(schema, columns.image)


def read_list(item: ObjectInfo, columns: ParquetColumns, retry: Retry, column: Leaf | None = None) -> list[str]:
    """The URIs that a list names, in its order, each as `jobs.lake` writes it.

    `column` is the column of URIs, for a Parquet file. Relative paths count from the list's own folder. Rows without
    a URI are left out. Raises UsageError for an entry that cannot be a URI, and what `jobs.storage` raises.
    """
    if column is not None:
        entries: Iterator[tuple[int, str | None]] = enumerate(_column_entries(item, column, retry), start=1)
    else:
        data = read_bytes(item.uri, etag=item.etag or None, size=item.size if item.size >= 0 else None, retry=retry)
        entries = enumerate(_text_entries(item.uri, data, columns.image), start=1)
    return [_address(item.uri, number, entry.strip()) for number, entry in entries if entry and entry.strip()]


def _column_entries(item: ObjectInfo, column: Leaf, retry: Retry) -> Iterator[str | None]:
    try:
        yield from read_column(item.uri, item.size, item.etag, column, retry)
    except CORRUPT as error:
        raise UsageError(f"{item.uri}: the column {column.name} cannot be read: {one_line(str(error), 160)}") from None


def _text_entries(uri: str, data: bytes, column: str | None) -> Iterator[str | None]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    name = uri.lower()
    if name.endswith((".csv", ".tsv")):
        yield from _table_entries(uri, text, column, "\t" if name.endswith(".tsv") else ",")
    elif name.endswith((".jsonl", ".ndjson")):
        yield from _json_entries(uri, text.splitlines(), column)
    else:
        yield from (None if line.lstrip().startswith("#") else line for line in text.splitlines())


def _table_entries(uri: str, text: str, column: str | None, delimiter: str) -> Iterator[str | None]:
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        first = next(rows, [])
        place = _column(first, column)
        if place is None and column is None:  # no line of names
            place = next((number for number, cell in enumerate(first) if _looks_like_address(cell)), None)
            yield None if place is None else first[place]
        else:
            yield None
        if place is None:
            raise UsageError(f"{uri}: no column of URIs in {', '.join(first)}; name it with --image-column")
        yield from (row[place] if len(row) > place else None for row in rows)
    except csv.Error as error:
        raise UsageError(f"{uri}: not a table: {error}") from None


def _json_entries(uri: str, lines: Iterable[str], column: str | None) -> Iterator[str | None]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield None
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{uri}: line {number} is not JSON") from None
        if isinstance(value, dict):
            names = list(value)
            place = _column(names, column)
            if place is None:
                raise UsageError(f"{uri}: no field of URIs in line {number}; name it with --image-column")
            value = value[names[place]]
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{uri}: line {number} holds no URI")
        yield value


def _column(names: Sequence[str], chosen: str | None) -> int | None:
    plain = [name.strip().lower() for name in names]
    wanted = URI_NAMES if chosen is None else (chosen.lower(),)
    return next((plain.index(name) for name in wanted if name in plain), None)


def _looks_like_address(entry: str) -> bool:
    return "/" in entry or kind_of(entry) is not None


def _address(list_uri: str, number: int, entry: str) -> str:
    shown = without_credentials(entry)[:100]
    try:
        entry.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{list_uri}: entry {number} ({shown!r}) is not valid Unicode") from None
    if not _looks_like_address(entry):
        raise UsageError(f"{list_uri}: entry {number} ({shown!r}) is neither a URI nor a path of an image")
    if entry.endswith("/"):
        raise UsageError(f"{list_uri}: entry {number} ({shown!r}) is a folder; give it as an INPUT of its own")
    if holds_credentials(entry):
        raise UsageError(
            f"{list_uri}: entry {number} ({shown}) holds a password or a signature, and ids are made from "
            "addresses; give credentials by the environment or the store's own files"
        )
    if not has_scheme(entry) and not entry.startswith(("/", "~")):
        entry = beside(list_uri, entry)
    return normalised(entry)
