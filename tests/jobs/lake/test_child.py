"""Files that kill the process which reads them: read in a child, they are a row, and the reader goes on."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pytest
from support.lakes import encrypted_parquet_of, fetch, parquet_of, put

from jobs.lake import ChildDiedError, ParquetColumns, call_in_child, index_in_child, index_source

pytestmark = pytest.mark.process


class Deadly(ParquetColumns):
    """Ends the process that unpickles it, as a file may end the process that reads it."""

    def __reduce__(self):
        return os.abort, ()


def test_a_call_in_a_child():
    assert call_in_child(len, None, b"abc") == 3
    with pytest.raises(ZeroDivisionError):
        call_in_child(divmod, None, 1, 0)
    with pytest.raises(ChildDiedError) as caught:
        call_in_child(os._exit, None, 3)
    assert not caught.value.timed_out
    with pytest.raises(ChildDiedError) as caught:
        call_in_child(time.sleep, 0.2, 600)
    assert caught.value.timed_out
    assert call_in_child(len, None, b"abcd") == 4


def test_an_index_in_a_child(tmp_path):
    source = put(str(tmp_path / "a.parquet"), parquet_of(pa.table({"image": [b"x", b"y"]})))
    assert index_in_child(source, ParquetColumns()).equals(index_source(source))
    (row,) = index_in_child(source, Deadly()).to_pylist()
    assert row["image_id"] == source.uri
    assert row["problem"] == "undecodable: the file killed the process that read it"


def test_bytes_of_parquet_in_a_child(tmp_path):
    """pyarrow ends the process that asks for the metadata of an encrypted column under a plain footer."""
    good = index_source(put(str(tmp_path / "a.parquet"), parquet_of(pa.table({"image": [b"x", b"y"]})))).to_pylist()
    lists = pa.table({"image": [[b"x"], [b"y"]]})
    source = put(str(tmp_path / "b.parquet"), encrypted_parquet_of(lists, "image.list.element", plaintext_footer=True))
    bad = good[0] | {"uri": source.uri, "size": source.size, "etag": source.etag}
    first, second, third = fetch(pa.Table.from_pylist([good[0], bad, good[1]]), in_child=True)
    assert (first, third) == (b"x", b"y")
    assert second == ("undecodable", "the Parquet file killed the process that read it")
