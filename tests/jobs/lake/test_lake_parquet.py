"""Parquet files: columns found, ids unique, and only what is needed read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lakes import encrypted_parquet_of, fetch, parquet_of, put

from jobs import lake, storage
from jobs.lake import ParquetColumns, PassedOver, fetch_rows
from jobs.lake.index import index_source
from jobs.runtime.errors import UsageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store)])
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


def test_a_file_without_image_bytes_is_passed_over(tmp_path):
    source = put(str(tmp_path / "b.parquet"), parquet_of(pa.table({"a": [1], "url": ["https://host/a.jpg"]})))
    for columns in (ParquetColumns(), ParquetColumns(image="image")):
        index = index_source(source, columns)
        assert index.num_rows == 0
        passed_over = PassedOver.of(index)
        assert passed_over.counts == {"Parquet without image bytes": 1}
        assert passed_over.reason == f"{source.uri}: it has a (int64), url (string)"
    assert PassedOver.of(index_source(put(str(tmp_path / "c.jpg")))) == PassedOver(Counter(), None)


ENCODINGS = {
    "dictionary": pa.array(images(4)).dictionary_encode(),
    "large": pa.array(images(4), pa.large_binary()),
    "view": pa.array(images(4), pa.binary_view()),
    "nested twice": pa.array([{"inner": {"bytes": data, "path": "x"}} for data in images(4)]),
    "map value": pa.array([[("jpg", data)] for data in images(4)], pa.map_(pa.string(), pa.binary())),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_encodings_of_the_column_of_bytes(tmp_path, kind):
    table = pa.table({"id": ["a", "b", "c", "d"], "image": ENCODINGS[kind]})
    index = index_source(put(str(tmp_path / "a.parquet"), parquet_of(table, row_group_size=3)))
    suffix = "[0]" if kind == "map value" else ""
    assert [i.partition("#")[2] for i in index["image_id"].to_pylist()] == [f"{x}{suffix}" for x in "abcd"]
    assert fetch(index) == images(4)
    assert fetch(index.take([3, 1])) == [images(4)[3], images(4)[1]]


def test_columns_of_a_fixed_size(tmp_path):
    same = [data.ljust(400, b"\0") for data in images(4)]
    digests = pa.array([bytes([i]) * 32 for i in range(4)], pa.binary(32))
    for table in (
        pa.table({"sha256": digests, "photo": pa.array(same, pa.binary(400))}),
        pa.table({"sha256": digests, "photo": same}),
    ):
        assert fetch(index_source(put(str(tmp_path / "a.parquet"), parquet_of(table)))) == same
    source = put(str(tmp_path / "b.parquet"), parquet_of(pa.table({"sha256": digests})))
    assert index_source(source).num_rows == 0
    assert fetch(index_source(source, ParquetColumns("sha256")), columns=ParquetColumns("sha256")) == [
        bytes([i]) * 32 for i in range(4)
    ]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ["list", "large list", "list of structs", "struct of lists", "list of lists"])
def test_several_images_in_a_row(tmp_path, monkeypatch, kind, kept):
    if not kept:
        monkeypatch.setattr("jobs.lake.parquet_rows._KEPT_BYTES", 0)
    data = images(9)
    rows = [data[0:3], [], None, data[3:4], [data[4], None, data[5]], [], data[6:9]]
    column = {
        "list": pa.array(rows, pa.list_(pa.binary())),
        "large list": pa.array(rows, pa.large_list(pa.binary())),
        "list of structs": pa.array([row and [x and {"bytes": x, "path": "p"} for x in row] for row in rows]),
        "struct of lists": pa.array([None if row is None else {"all": row} for row in rows]),
        "list of lists": pa.array([row and [[x] for x in row] for row in rows], pa.list_(pa.list_(pa.binary()))),
    }[kind]
    table = pa.table({"images": column, "id": [f"r{i}" for i in range(7)]})
    source = put(str(tmp_path / "a.parquet"), parquet_of(table, row_group_size=2))
    index = index_source(source)
    ids = [image_id.partition("#")[2] for image_id in index["image_id"].to_pylist()]
    assert ids == ["r0[0]", "r0[1]", "r0[2]", "r3[0]", "r4[0]", "r4[2]", "r6[0]", "r6[1]", "r6[2]"]
    assert fetch(index) == data
    assert fetch(index.take([8, 4])) == [data[8], data[4]]


def test_two_columns_of_one_name(tmp_path):
    twice = pa.table([images(2), images(2)], names=["image", "image"])
    (row,) = index_source(put(str(tmp_path / "a.parquet"), parquet_of(twice))).to_pylist()
    assert row["problem"] == "unsupported: 2 columns of this file have the name image"
    captions = pa.table([images(2), ["a", "b"], ["c", "d"]], names=["image", "caption", "caption"])
    assert fetch(index_source(put(str(tmp_path / "b.parquet"), parquet_of(captions)))) == images(2)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_columns_are_told(tmp_path, plaintext_footer):
    table = pa.table({"id": ["a", "b"], "image": images(2)})
    source = put(str(tmp_path / "a.parquet"), encrypted_parquet_of(table, "image", plaintext_footer=plaintext_footer))
    # in a process of its own, for pyarrow may end the process that asks for such a column
    code = f"""
from jobs.lake import Source, fetch_rows, index_source
from jobs.lake.source import INDEX
source = Source(*{tuple(source)!r})
(row,) = index_source(source).to_pylist()
print(row["problem"])
print(fetch_rows([row | {{"length": -1, "problem": None}}], max_bytes=100)[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    indexed, fetched = done.stdout.splitlines()
    assert (indexed.split(":")[0], fetched.split(":")[0]) == ("unsupported", "unsupported")


@pytest.mark.compute
def test_kept_row_groups_under_threads(tmp_path):
    """Units of several files side by side in one process: each gets its own bytes, and none an error."""
    sources = []
    for name in "abc":
        table = pa.table({"image": [f"{name}{i}".encode() * 50 for i in range(40)]})
        sources.append(put(str(tmp_path / f"{name}.parquet"), parquet_of(table, row_group_size=4)))
    rows = {source.uri: index_source(source).to_pylist() for source in sources}

    def read(task: int) -> bool:
        uri = sources[task % 3].uri
        start = task % 37
        expected = [f"{uri[-9]}{i}".encode() * 50 for i in range(start, start + 3)]
        return fetch_rows(rows[uri][start : start + 3], max_bytes=1000) == expected

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(600)))
    finally:
        sys.setswitchinterval(interval)


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


def no_utf8(names: list[bytes]) -> pa.Array:
    """A column of strings as other writers leave it: Arrow checks nothing of bytes that are called strings."""
    column = pa.array(names, pa.binary())
    return pa.StringArray.from_buffers(len(column), *column.buffers()[1:])


def test_ids_that_are_no_utf8(tmp_path):
    for number, ids in enumerate((no_utf8([b"caf\xe9", b"b"]), no_utf8([b"caf\xe9", b"b"]).dictionary_encode())):
        source = put(str(tmp_path / f"{number}.parquet"), parquet_of(pa.table({"id": ids, "image": images(2)})))
        index = index_source(source)
        assert index["image_id"].to_pylist() == [f"{source.uri}#caf\\xe9", f"{source.uri}#b"]
        assert fetch(index) == images(2)


def test_names_of_columns_that_are_no_utf8(tmp_path):
    data = parquet_of(pa.table({"image": images(2), "abcd": [1, 2]})).replace(b"abcd", b"ab\xe9d")
    (row,) = index_source(put(str(tmp_path / "a.parquet"), data)).to_pylist()
    assert row["problem"].startswith("undecodable: no readable Parquet file: ")


def test_pages_with_fewer_values_than_the_footer_says(tmp_path):
    """Each number of the footer that is 40, made 10 or −11 in turn: every row has its bytes or a problem."""
    data = parquet_of(pa.table({"image": images(40)}), use_dictionary=False)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in (place for place in range(footer, len(data) - 8) if data[place] == 2 * 40):
        for value in (2 * 10, 2 * 11 - 1):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            index = index_source(put(str(tmp_path / f"{place}-{value}.parquet"), changed))
            fetched = fetch(index)
            assert len(fetched) == len(index)
            for found, image in zip(fetched, images(40), strict=False):
                assert found == image or found.status == "undecodable"
