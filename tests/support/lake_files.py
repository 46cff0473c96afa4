"""Small lakes for tests: tar shards, Parquet files and plain objects, written and read back."""

from __future__ import annotations

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import lake, storage
from jobs.lake import Source, fetch_rows

MAX_BYTES = 10 << 20


def tar_of(members: list[tuple[str, bytes]], **options) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def parquet_of(table: pa.Table, **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def put(uri: str, data: bytes = b"x") -> Source:
    storage.put_atomic(uri, data)
    return Source(*storage.object_info(uri), lake.kind_of(uri))


def fetch(table: pa.Table, **options):
    return fetch_rows(table.to_pylist(), max_bytes=MAX_BYTES, **options)
