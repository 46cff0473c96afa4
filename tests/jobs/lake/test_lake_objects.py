"""Plain images: their index and their bytes, and what all kinds of input have in common when bytes are fetched."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.lakes import MAX_BYTES, fetch, parquet_of, put, tar_bytes

from jobs import lake, storage
from jobs.lake import Problem, fetch_rows
from jobs.lake.index import index_source
from jobs.storage import Retry, TransientStorageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store)])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


def test_plain_images(folder):
    sources = [put(f"{folder}/{name}", name.encode() * 100) for name in ("a.jpg", "b b#ü\n.png", "empty.png")]
    sources[2] = put(f"{folder}/empty.png", b"")
    table = pa.concat_tables([index_source(source) for source in sources])
    assert table.schema == lake.INDEX
    assert table.equals(lake.image_rows(sources))
    assert table["image_id"].to_pylist() == [source.uri for source in sources]
    assert fetch(table) == [b"a.jpg" * 100, "b b#ü\n.png".encode() * 100, b""]
    address = {
        "image_id": sources[0].uri,
        "uri": sources[0].uri,
        "offset": None,
        "length": None,
        "size": None,
        "etag": None,
    }
    assert fetch_rows([address], max_bytes=MAX_BYTES) == [b"a.jpg" * 100]
    assert fetch_rows([address], max_bytes=10) == [Problem("too_large", "500 bytes, 10 allowed")]


def test_replaced_and_missing_objects_are_problems_of_their_own(folder):
    names = ("keep", "change", "grow", "lose\n")
    table = lake.image_rows([put(f"{folder}/{name}.jpg", name.encode()) for name in names])
    storage.put_atomic(f"{folder}/change.jpg", b"CHANGE")
    storage.put_atomic(f"{folder}/grow.jpg", b"grow grow")
    storage.delete_objects([f"{folder}/lose\n.jpg"])
    keep, change, grow, lose = fetch(table)
    assert keep == b"keep"
    assert (change.status, grow.status, lose.status) == ("changed", "changed", "missing")
    assert "lose .jpg" in lose.reason
    assert lose.reason.isprintable()


def test_oversized_images_are_not_asked_for(folder, monkeypatch):
    plain = lake.image_rows([put(f"{folder}/a.jpg", b"x" * 1000)])
    member = index_source(put(f"{folder}/s.tar", tar_bytes([("a.jpg", b"x" * 1000)])))
    row = index_source(put(f"{folder}/t.parquet", parquet_of(pa.table({"image": [b"x" * 1000]}))))
    whole = pa.concat_tables([plain, member, row])
    assert fetch_rows(whole.to_pylist(), max_bytes=1000) == [b"x" * 1000] * 3
    monkeypatch.setattr("jobs.lake.fetch.read_bytes", None)
    monkeypatch.setattr("jobs.lake.fetch.read_range", None)
    assert fetch_rows(whole.to_pylist(), max_bytes=999) == [Problem("too_large", "1000 bytes, 999 allowed")] * 3


def test_a_refused_file_is_a_problem_and_a_silent_store_is_not(tmp_path, s3, monkeypatch):
    table = lake.image_rows([put(f"{s3.prefix()}/a.jpg", b"data")])
    retry = Retry(attempts=3, first_delay=0.01)
    with monkeypatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(TransientStorageError, match="gave up after 3 attempts"):
            fetch(table, retry=retry)
    assert retry.counts == {"connection": 2}
    assert fetch(table) == [b"data"]


def test_many_objects_are_fetched_in_their_order(s3):
    prefix = s3.prefix()
    sources = [put(f"{prefix}/{i:03}.jpg", b"%d" % i) for i in range(24)]
    assert fetch(lake.image_rows(sources)) == [b"%d" % i for i in range(24)]
    assert fetch_rows([], max_bytes=1) == []
