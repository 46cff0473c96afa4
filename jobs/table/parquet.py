"""Reads and writes small Parquet tables, each as one object in memory."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage


def to_bytes(table: pa.Table, *, row_group_size: int | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size)
    return sink.getvalue()


def from_bytes(data: bytes) -> pa.Table:
    # ParquetFile, not read_table: that one may add columns that it reads out of a path with `key=value`
    return pq.ParquetFile(io.BytesIO(data)).read()


def read(uri: str) -> pa.Table:
    return from_bytes(storage.read_bytes(uri))
