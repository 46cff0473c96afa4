"""Lakes behind a web server: single objects, folders, patterns, and servers that give no ranges."""

from __future__ import annotations

import os

import pytest
from support.lakes import fetch, tar_bytes
from support.web_server import WebServer

from jobs import lake, storage
from jobs.lake import expand_inputs, index_source
from jobs.runtime.errors import UsageError
from jobs.storage import ObjectChangedError, ObjectMissingError, Retry, TransientStorageError


def quick() -> Retry:
    return Retry(attempts=3, first_delay=0.01, max_delay=0.02)


@pytest.fixture
def folder(tmp_path):
    for name in ("a 1.jpg", "b.jpg", "sub/c.png", "sub/deep/d.webp", "sub/notes.txt", "empty/x.txt"):
        (tmp_path / "lake" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lake" / name).write_bytes(name.encode())
    for number in range(12):
        (tmp_path / "lake" / f"n{number:03}.jpg").write_bytes(b"%d" % number)
    return tmp_path / "lake"


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(request, folder):
    with WebServer(folder, ranges=request.param) as server:
        yield server


def names(sources, web) -> list[str]:
    return [source.uri.removeprefix(f"{web.url}/") for source in sources]


def test_folders_and_patterns(web):
    assert names(expand_inputs([f"{web.url}/sub/"]), web) == ["sub/c.png", "sub/deep/d.webp"]
    assert names(expand_inputs([f"{web.url}/sub"]), web) == ["sub/c.png", "sub/deep/d.webp"]
    assert names(expand_inputs([f"{web.url}/*.jpg"]), web)[:2] == ["a%201.jpg", "b.jpg"]
    assert names(expand_inputs([f"{web.url}/**/*.webp"]), web) == ["sub/deep/d.webp"]
    assert names(expand_inputs([f"{web.url}/b.jpg?size=1"]), web) == ["b.jpg?size=1"]
    with pytest.raises(UsageError, match="nothing to label"):
        expand_inputs([f"{web.url}/empty/"])
    with pytest.raises(UsageError, match="no object of that name"):
        expand_inputs([f"{web.url}/nothing.jpg"])


def test_many_names_by_braces(web):
    sources = expand_inputs([f"{web.url}/n{{000..011}}.jpg"])
    assert names(sources, web) == [f"n{number:03}.jpg" for number in range(12)]
    assert fetch(lake.image_rows(sources)) == [b"%d" % number for number in range(12)]
    with pytest.raises(UsageError, match=r"no such object or folder: .*n012\.jpg"):
        expand_inputs([f"{web.url}/n{{000..012}}.jpg"])


@pytest.mark.compute
def test_images_of_a_folder_are_fetched(web):
    table = lake.image_rows(expand_inputs([f"{web.url}/*.jpg"]))
    assert fetch(table)[:2] == [b"a 1.jpg", b"b.jpg"]
    assert lake.fetch_rows(table.to_pylist()[:1], max_bytes=3)[0].status == "too_large"


def test_shards(folder, web):
    (folder / "s.tar").write_bytes(tar_bytes([("x.jpg", b"x" * 3000), ("y.jpg", b"y" * 3000)]))
    (source,) = expand_inputs([f"{web.url}/s.tar"])
    assert fetch(index_source(source)) == [b"x" * 3000, b"y" * 3000]
    os.utime(folder / "s.tar", (1, 1))
    with pytest.raises(ObjectChangedError):
        storage.read_range(source.uri, 0, 10, etag=source.etag)


def test_a_large_shard_without_ranges_is_refused_at_once(folder):
    with open(folder / "large.tar", "wb") as file:
        file.write(tar_bytes([("x.jpg", b"x")]))
        file.truncate(65 << 20)
    with WebServer(folder, ranges=False) as web:
        (source,) = expand_inputs([f"{web.url}/large.tar"])
        web.requests.clear()
        (row,) = index_source(source).to_pylist()
        assert row["problem"].startswith("unreadable: ")
        assert "ignores Range requests" in row["problem"]
        assert len(web.requests) == 1


def test_failures_are_told_apart(web):
    uri = f"{web.url}/b.jpg"
    with pytest.raises(ObjectMissingError):
        storage.read_bytes(f"{web.url}/nothing.jpg", retry=quick())
    for status in (503, 403):
        web.failing["/b.jpg"] = status
        with pytest.raises(TransientStorageError, match=str(status)):
            storage.object_info(uri, retry=quick())
        with pytest.raises(TransientStorageError, match=str(status)):
            storage.read_bytes(uri, retry=quick())
    web.failing.clear()
    assert storage.read_bytes(uri) == b"b.jpg"
    assert storage.object_info(uri).size == 5
