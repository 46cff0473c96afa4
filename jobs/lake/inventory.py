"""S3 Inventory as an input: the objects of a bucket from the files of a report, without a single listing.

The report's `manifest.json` names its format, its columns and its files. A file is CSV without a line of names,
compressed with gzip, in which keys are URL-encoded, or Parquet, in which they are not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from jobs.lake.parquet_rows import CORRUPT
from jobs.runtime.errors import UsageError
from jobs.storage import ObjectInfo, Retry, one_line, open_file, read_bytes

MANIFEST_NAME = "manifest.json"

#: columns by their names in CSV and in Parquet
_COLUMNS = {
    "bucket": ("Bucket", "bucket"),
    "key": ("Key", "key"),
    "size": ("Size", "size"),
    "etag": ("ETag", "e_tag"),
    "is_latest": ("IsLatest", "is_latest"),
    "is_delete_marker": ("IsDeleteMarker", "is_delete_marker"),
}
_NEEDED = ("bucket", "key")
_BUCKET_ARN = "arn:"


@dataclass(frozen=True)
class Inventory:
    """A report: the format of its files, their names for the columns, and where the files are."""

    uri: str
    """of its manifest.json"""
    format: str
    """CSV or Parquet"""
    columns: dict[str, str]
    """the name of each column in the files, by the names in `_COLUMNS`; only those that the report has"""
    all_columns: tuple[str, ...]
    """the names of all columns of a CSV file, in its order"""
    files: tuple[tuple[str, str], ...]
    """(uri, MD5 in hexadecimal or "") of each file"""

    @property
    def knows_versions(self) -> bool:
        """Whether it has size and etag of its objects."""
        return "size" in self.columns and "etag" in self.columns


def is_inventory_name(uri: str) -> bool:
    """Whether an object has the name of the manifest of an S3 Inventory."""
    return uri.rpartition("/")[2] == MANIFEST_NAME


def read_inventory(item: ObjectInfo, retry: Retry) -> Inventory:
    """The report whose manifest.json is `item`.

    Raises UsageError for any other JSON file, for ORC and for a report without buckets and keys.
    """
    data = read_bytes(item.uri, etag=item.etag or None, size=item.size if item.size >= 0 else None, retry=retry)
    try:
        manifest = json.loads(data)
        form, schema, bucket = manifest["fileFormat"], manifest["fileSchema"], manifest["destinationBucket"]
        files = [(entry["key"], entry.get("MD5checksum", "")) for entry in manifest["files"]]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{item.uri}: not the manifest of an S3 Inventory, and no other .json file is an input"
        ) from None
    if form not in ("CSV", "Parquet"):
        raise UsageError(f"{item.uri}: an inventory in {form} cannot be read; have it made as CSV or Parquet")
    names = tuple(name.strip() for name in schema.split(",")) if form == "CSV" else ()
    place = 0 if form == "CSV" else 1
    columns = {ours: theirs[place] for ours, theirs in _COLUMNS.items() if form == "Parquet" or theirs[0] in names}
    if form == "Parquet":
        columns = {ours: theirs for ours, theirs in columns.items() if re.search(rf"\b{theirs}\b", schema)}
    if missing := [name for name in _NEEDED if name not in columns]:
        raise UsageError(f"{item.uri}: the inventory has no column {' and no '.join(missing)}")
    if bucket.startswith(_BUCKET_ARN):
        bucket = bucket.rpartition(":")[2]
    return Inventory(item.uri, form, columns, names, tuple((f"s3://{bucket}/{key}", md5) for key, md5 in files))


def inventory_objects(inventory: Inventory, retry: Retry) -> Iterator[ObjectInfo]:
    """The present objects that a report names, in its order, with size -1 and etag "" where it does not have them.

    Older versions, deleted objects and markers of folders are left out. Raises UsageError for a file that cannot be
    read, and what `jobs.storage` raises.
    """
    for uri, md5 in inventory.files:
        try:
            batches = (
                _csv_batches(uri, md5, inventory, retry)
                if inventory.format == "CSV"
                else _parquet_batches(uri, inventory, retry)
            )
            for batch in batches:
                yield from _objects(batch, inventory)
        except CORRUPT as error:
            raise UsageError(f"{uri}: this file of the inventory cannot be read: {one_line(str(error), 160)}") from None


def _csv_batches(uri: str, md5: str, inventory: Inventory, retry: Retry) -> Iterator[pa.RecordBatch]:
    data = read_bytes(uri, retry=retry)
    if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.lower():
        raise UsageError(f"{uri}: this file of the inventory is not the one that its manifest names (another MD5)")
    stream = pa.CompressedInputStream(pa.BufferReader(data), "gzip")
    wanted = list(inventory.columns.values())
    reader = pa_csv.open_csv(
        stream,
        read_options=pa_csv.ReadOptions(column_names=list(inventory.all_columns), block_size=1 << 22),
        convert_options=pa_csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
        ),
    )
    yield from reader


def _parquet_batches(uri: str, inventory: Inventory, retry: Retry) -> Iterator[pa.RecordBatch]:
    with open_file(uri, retry=retry) as file:
        yield from pq.ParquetFile(file).iter_batches(columns=list(inventory.columns.values()))


def _objects(batch: pa.RecordBatch, inventory: Inventory) -> Iterator[ObjectInfo]:
    names = list(inventory.columns)
    decode = unquote_plus if inventory.format == "CSV" else str
    columns = [batch.column(inventory.columns[name]).to_pylist() for name in names]
    for values in zip(*columns, strict=True):
        row: dict[str, Any] = dict(zip(names, values, strict=True))
        # a truth value is a word in CSV; it is empty or null for a bucket without versions
        if str(row.get("is_delete_marker")).lower() == "true" or str(row.get("is_latest")).lower() == "false":
            continue
        key = decode(row["key"])
        if key.endswith("/"):
            continue
        size = row.get("size")
        yield ObjectInfo(
            f"s3://{row['bucket']}/{key}",
            int(size) if size not in (None, "") else -1,
            (row.get("etag") or "").strip('"'),
        )
