"""Tar shards: every image found with its place, whatever the names and however broken the archive."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from support.lakes import MAX_BYTES, fetch, put, tar_bytes

from jobs import lake, storage
from jobs.lake import fetch_rows
from jobs.lake.index import index_source


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store)])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


def test_tar_members(folder):
    members = [
        ("0001.json", b"{}"),
        ("0001.jpg", b"first" * 1000),
        ("./sub/0002.left.PNG", b"second"),
        ("sub/0002.right.png", b""),
        ("0001.cls", b"7"),
        ("._0001.jpg", b"macOS"),
        ("inner.tar", tar_bytes([("hidden.jpg", b"not looked for")])),
        ("0003.webp", b"third" * 100_000),
    ]
    source = put(f"{folder}/shard.tar", tar_bytes(members))
    table = index_source(source)
    assert table.schema == lake.INDEX
    images = ["0001.jpg", "./sub/0002.left.PNG", "sub/0002.right.png", "0003.webp"]
    assert table["image_id"].to_pylist() == [f"{source.uri}#{name}" for name in images]
    assert table["problem"].null_count == 4
    assert fetch(table) == [dict(members)[name] for name in images]
    assert fetch(table.take([3, 0])) == [b"third" * 100_000, b"first" * 1000]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_only_strings(tmp_path, format):
    wild = ["../../etc/passwd.jpg", "/abs.jpg", "new\nline.jpg", "sp ace.jpg", "ünï☃.jpg", "a#b?c.jpg", "quote'\".jpg"]
    if format != tarfile.USTAR_FORMAT:
        wild.append("long/" * 60 + "name.jpg")
    source = put(str(tmp_path / "s.tar"), tar_bytes([(name, name.encode()) for name in wild], format=format))
    table = index_source(source)
    assert table["image_id"].to_pylist() == [f"{source.uri}#{name}" for name in wild]
    assert fetch(table) == [name.encode() for name in wild]
    assert os.listdir(tmp_path) == ["s.tar"]


def test_names_that_are_no_utf8(tmp_path):
    data = tar_bytes([("caf\udce9.jpg", b"latin-1")], format=tarfile.GNU_FORMAT)
    table = index_source(put(str(tmp_path / "s.tar"), data))
    assert table["image_id"].to_pylist() == [f"{tmp_path}/s.tar#caf\\xe9.jpg"]
    assert fetch(table) == [b"latin-1"]


def test_names_that_come_twice(tmp_path):
    same = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg#2.jpg", b"4"), ("a.jpg", b"5")]
    table = index_source(put(str(tmp_path / "s.tar"), tar_bytes(same)))
    ids = [image_id.partition("#")[2] for image_id in table["image_id"].to_pylist()]
    assert ids == ["a.jpg", "b.jpg", "a.jpg#2", "a.jpg#2.jpg", "a.jpg#3"]
    assert fetch(table) == [b"1", b"2", b"3", b"4", b"5"]


def test_pax_attributes(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}) as tar:
        info = tarfile.TarInfo("short.jpg")
        info.size, info.pax_headers = 5, {"path": "the/real name ☃.jpg", "mtime": "1.5"}
        tar.addfile(info, io.BytesIO(b"bytes"))
    table = index_source(put(str(tmp_path / "s.tar"), stream.getvalue()))
    assert table["image_id"].to_pylist() == [f"{tmp_path}/s.tar#the/real name ☃.jpg"]
    assert fetch(table) == [b"bytes"]


def test_large_and_small_members_need_few_requests(s3, monkeypatch):
    uri = f"{s3.prefix()}/s.tar"
    few_large = [(f"{i}.jpg", bytes([i]) * (12 << 20)) for i in range(5)]
    many_small = [(f"s{i}.jpg", b"%d" % i * 1000) for i in range(2000)]
    source = put(uri, tar_bytes(few_large + many_small))
    requests = []
    read_range = storage.read_range
    monkeypatch.setattr("jobs.lake.tar_index.read_range", lambda *a, **k: requests.append(a[2]) or read_range(*a, **k))
    table = index_source(source)
    assert table.num_rows == 2005
    assert len(requests) < 10
    assert sum(requests) < 22 << 20  # of 66 MiB: large members are jumped over
    requests.clear()
    monkeypatch.setattr("jobs.lake.fetch.read_range", lambda *a, **k: requests.append(a[2]) or read_range(*a, **k))
    assert fetch(table.slice(5, 64)) == [data for _, data in many_small[:64]]
    assert len(requests) == 1
    options = {"max_bytes": 13 << 20}
    assert fetch_rows(table.take([0, 3, 2000]).to_pylist(), **options) == [
        few_large[0][1],
        few_large[3][1],
        many_small[1995][1],
    ]
    assert len(requests) == 4


def test_vanished_and_replaced_shards(folder):
    members = [(f"{name}.jpg", name.encode() * 700) for name in "abc"]
    source = put(f"{folder}/s.tar", tar_bytes(members))
    table = index_source(source)
    storage.put_atomic(source.uri, tar_bytes(members[::-1]))
    assert {problem.status for problem in fetch(table)} == {"changed"}
    assert index_source(source)["problem"].to_pylist() == [
        "changed: the object was replaced since it was listed; have it labelled again"
    ]
    storage.delete_objects([source.uri])
    assert {problem.status for problem in fetch(table)} == {"missing"}
    (row,) = index_source(source).to_pylist()
    assert row["problem"].startswith("missing: ")
    assert (row["image_id"], row["offset"], row["length"]) == (source.uri, 0, 0)
    assert fetch_rows([row], max_bytes=MAX_BYTES)[0].status == "missing"
