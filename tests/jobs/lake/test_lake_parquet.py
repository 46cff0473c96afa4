"""Parquet files: columns found, ids unique, and only what is needed read."""

from __future__ import annotations

import io
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lake_files import fetch, parquet_of, put

from jobs import lake, storage
from jobs.lake import ParquetColumns
from jobs.lake.index import index_source
from jobs.runtime.errors import UsageError


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


def images(count: int) -> list[bytes]:
    return [b"image %d " % i * (10 + i) for i in range(count)]


def test_parquet_by_column_names(folder):
    table = pa.table({"image_id": [f"id-{i}" for i in range(300)], "label": range(300), "image": images(300)})
    source = put(f"{folder}/a.parquet", parquet_of(table, row_group_size=70))
    index = index_source(source)
    assert index.schema == lake.INDEX
    assert index["image_id"].to_pylist() == [f"{source.uri}#id-{i}" for i in range(300)]
    assert index["offset"].to_pylist() == list(range(300))
    assert set(index["length"].to_pylist()) == {-1}
    assert fetch(index) == images(300)
    assert fetch(index.take([299, 69, 70, 0])) == [images(300)[i] for i in (299, 69, 70, 0)]


def test_hugging_face_struct(tmp_path):
    values = [{"bytes": data, "path": f"p/{i}.jpg"} for i, data in enumerate(images(5))]
    values[3] = {"bytes": None, "path": "elsewhere.jpg"}
    values[4] = None
    source = put(str(tmp_path / "a.parquet"), parquet_of(pa.table({"image": values, "label": range(5)})))
    index = index_source(source)
    assert index["image_id"].to_pylist() == [
        f"{source.uri}#{name}" for name in ("p/0.jpg", "p/1.jpg", "p/2.jpg", "elsewhere.jpg", "4")
    ]
    fetched = fetch(index)
    assert fetched[:3] == images(3)
    assert [problem.status for problem in fetched[3:]] == ["undecodable"] * 2


def test_ids_come_twice_or_are_numbers_or_absent(tmp_path):
    def ids(column):
        data = {"bytes": images(3)} if column is None else {"id": column, "bytes": images(3)}
        source = put(str(tmp_path / "a.parquet"), parquet_of(pa.table(data)))
        return [image_id.removeprefix(f"{source.uri}#") for image_id in index_source(source)["image_id"].to_pylist()]

    assert ids(["x", "x", "y"]) == ["x", "x#2", "y"]
    assert ids([7, 8, None]) == ["7", "8", "2"]
    assert ids(pa.array(["k", "k", "m"]).dictionary_encode()) == ["k", "k#2", "m"]
    assert ids(None) == ["0", "1", "2"]


def test_columns_by_argument(tmp_path):
    table = pa.table({"thumb": images(2), "full": images(4)[2:], "key": ["a", "b"], "number": [5, 6]})
    source = put(str(tmp_path / "a.parquet"), parquet_of(table))
    columns = ParquetColumns("full", "number")
    index = index_source(source, columns)
    assert index["image_id"].to_pylist() == [f"{source.uri}#5", f"{source.uri}#6"]
    assert fetch(index, columns=columns) == images(4)[2:]
    for wrong, message in [
        (ParquetColumns(), r"not clear; it has thumb \(binary\), full .*--image-column"),
        (ParquetColumns("key"), "--image-column key is no column of bytes"),
        (ParquetColumns("full", "thumb"), "--id-column thumb is no column of strings"),
        (ParquetColumns("full", "nothing"), "--id-column nothing"),
    ]:
        with pytest.raises(UsageError, match=message):
            index_source(source, wrong)
    source = put(str(tmp_path / "b.parquet"), parquet_of(pa.table({"a": [1]})))
    with pytest.raises(UsageError, match="no column of image bytes"):
        index_source(source)


def test_broken_parquet(tmp_path):
    table = pa.table({"id": [str(i) for i in range(40)], "image": [b"%d" % i * 500 for i in range(40)]})
    data = parquet_of(table, row_group_size=10, compression="zstd", use_dictionary=False)
    for broken in (b"", b"PAR1", data[: len(data) // 2], b"no parquet" * 100):
        (row,) = index_source(put(str(tmp_path / "a.parquet"), broken)).to_pylist()
        assert row["problem"].startswith("undecodable: no readable Parquet file")
    damaged = bytearray(data)
    page = pq.read_metadata(io.BytesIO(data)).row_group(1).column(1).data_page_offset
    damaged[page : page + 100] = b"\xff" * 100
    fetched = fetch(index_source(put(str(tmp_path / "a.parquet"), bytes(damaged))))
    assert fetched[:10] == table["image"].to_pylist()[:10]
    assert {problem.status for problem in fetched[10:20]} == {"undecodable"}


@pytest.mark.parametrize("kept", [True, False])
def test_only_the_row_groups_that_are_wanted_are_read(s3, monkeypatch, kept):
    table = pa.table({"id": [str(i) for i in range(400)], "image": [os.urandom(10_000) for _ in range(400)]})
    source = put(f"{s3.prefix()}/a.parquet", parquet_of(table, row_group_size=100))
    index = index_source(source)
    if not kept:
        monkeypatch.setattr("jobs.lake.parquet_rows._KEPT_BYTES", 100_000)
    read = []
    read_range = storage.read_range
    monkeypatch.setattr("jobs.storage.range_file.read_range", lambda *a, **k: read.append(a[2]) or read_range(*a, **k))
    assert fetch(index.slice(220, 20)) == table["image"].to_pylist()[220:240]
    assert 1e6 < sum(read) < 1.1e6
    assert fetch(index.slice(240, 20)) == table["image"].to_pylist()[240:260]
    assert sum(read) < (1.1e6 if kept else 2.2e6)
    assert fetch(index.slice(290, 20)) == table["image"].to_pylist()[290:310]
    assert sum(read) < (2.2e6 if kept else 4.4e6)
