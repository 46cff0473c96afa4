"""Small lakes for tests: tar shards, Parquet files and plain objects, written and read back."""

from __future__ import annotations

import base64
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from support.lakes import tar_bytes as tar_of  # noqa: F401 - the tests of the lake take it from here

from jobs import lake, storage
from jobs.lake import Source, fetch_rows

MAX_BYTES = 10 << 20


def parquet_of(table: pa.Table, **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


class _Kms(pe.KmsClient):
    """Keeps keys as they are: the files of tests need no secret."""

    def __init__(self, config):
        super().__init__()

    def wrap_key(self, key_bytes, master_key_identifier):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return base64.b64decode(wrapped_key)


def encrypted_parquet_of(table: pa.Table, column: str, *, plaintext_footer: bool) -> bytes:
    """With `column` encrypted; without a plain footer the whole file needs a key."""
    configuration = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": [column]}, plaintext_footer=plaintext_footer
    )
    properties = pe.CryptoFactory(_Kms).file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return stream.getvalue()


def put(uri: str, data: bytes = b"x") -> Source:
    storage.put_atomic(uri, data)
    return Source(*storage.object_info(uri), lake.kind_of(uri))


def fetch(table: pa.Table, **options):
    return fetch_rows(table.to_pylist(), max_bytes=MAX_BYTES, **options)
