"""Tables and text files that name images by URI, as inputs of a run."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from support.lakes import fetch, parquet_of, put, tar_bytes

from jobs import lake
from jobs.lake import ParquetColumns, Source, expand_inputs, index_source
from jobs.runtime.errors import UsageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store)])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


NAMES = ["b.jpg", "a.png", "sub/no-extension", "gone.jpg"]


@pytest.fixture
def images(folder) -> list[str]:
    for name in NAMES[:3]:
        put(f"{folder}/data/{name}", name.encode())
    return [f"{folder}/data/{name}" for name in NAMES]


def lists_of(uris: list[str]) -> dict[str, bytes]:
    lines = "\n".join(uris)
    table = pa.table({"caption": ["x"] * len(uris), "image_url": uris, "width": range(len(uris))})
    return {
        "list.txt": f"# a comment\n\n{lines}\r\n".encode(),
        "list.lst": b"\xef\xbb\xbf" + lines.encode(),
        "without-extension": lines.encode(),
        "list.csv": ("caption,image_url\n" + "".join(f'"a, b",{uri}\n' for uri in uris)).encode(),
        "nameless.csv": "".join(f"7,{uri}\n" for uri in uris).encode(),
        "list.tsv": ("url\tcaption\n" + "".join(f"{uri}\tc\n" for uri in uris)).encode(),
        "list.jsonl": "".join(json.dumps({"url": uri, "n": 1}) + "\n" for uri in uris).encode(),
        "strings.ndjson": "".join(json.dumps(uri) + "\n" for uri in uris).encode(),
        "list.parquet": parquet_of(table, row_group_size=2),
        "dictionary.parquet": parquet_of(pa.table({"path": pa.array(uris).dictionary_encode()})),
        "struct.parquet": parquet_of(pa.table({"image": [{"uri": uri} for uri in uris], "n": range(len(uris))})),
    }


@pytest.mark.parametrize("name", lists_of(["x/y.jpg"]))
def test_lists_of_uris(folder, images, name):
    columns = ParquetColumns(image="image.uri") if name == "struct.parquet" else None
    put(f"{folder}/lists/{name}", lists_of(images)[name])
    sources = expand_inputs([f"{folder}/lists/{name}"], columns=columns)
    assert sources == [Source(uri, -1, "", "image") for uri in images]
    table = lake.image_rows(sources)
    assert table["image_id"].to_pylist() == images
    found = fetch(table)
    assert found[:3] == [name.encode() for name in NAMES[:3]]
    assert found[3].status == "missing"


def test_relative_paths_count_from_the_list(folder, images):
    put(f"{folder}/lists/list.txt", b"../data/b.jpg\n../data/./a.png\n")
    assert [s.uri for s in expand_inputs([f"{folder}/lists/list.txt"])] == images[:2]


def test_shards_in_a_list_and_what_comes_twice(folder, images):
    put(f"{folder}/s.tar", tar_bytes([("x.jpg", b"x")]))
    put(f"{folder}/list.txt", f"s.tar\n{images[0]}\ns.tar\n".encode())
    shard, image = expand_inputs([f"{folder}/list.txt", f"{folder}/data/b.jpg"])
    assert fetch(index_source(shard)) == [b"x"]
    assert image == Source(images[0], -1, "", "image")
    put(f"{folder}/list.txt", b"s.tar\nt.tar\n")
    with pytest.raises(UsageError, match=r"list\.txt: no such object or folder: .*t\.tar"):
        expand_inputs([f"{folder}/list.txt"])


def test_lists_that_lie_in_a_folder_are_passed_over(folder, images):
    for name, data in lists_of(["https://elsewhere.example/x.jpg"]).items():
        put(f"{folder}/data/{name}", data)
    uris = [source.uri for source in expand_inputs([f"{folder}/data"]) if source.kind == "image"]
    assert uris == sorted(images[:2])


def test_a_large_image_of_a_list_is_not_read(folder):
    put(f"{folder}/large.jpg", b"x" * 5000)
    put(f"{folder}/list.txt", b"large.jpg")
    rows = lake.image_rows(expand_inputs([f"{folder}/list.txt"])).to_pylist()
    assert lake.fetch_rows(rows, max_bytes=100) == [("too_large", "5000 bytes, 100 allowed")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"hello\nworld\n", r"a\.txt: entry 1 \('hello'\) is neither a URI nor a path"),
        ("a.txt", b"\xff\xfe\x00", r"a\.txt: not a text file in UTF-8"),
        ("a.txt", b"s3://bucket/folder/\n", "is a folder; give it as an INPUT of its own"),
        ("a.txt", b"https://host/a.jpg?X-Amz-Signature=abc\n", "holds a password or a signature"),
        ("a.csv", b"caption,width\nx,1\n", "no column of URIs in caption, width"),
        ("a.jsonl", b"{\n", "line 1 is not JSON"),
        ("a.jsonl", b'{"caption": 1}\n', "no field of URIs in line 1"),
        ("a.txt", b"\n# nothing\n", "nothing to label"),
        ("page", b"<!doctype html><p>", "neither an image, a tar, a Parquet file nor a list of URIs"),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path, name, data, message):
    put(str(tmp_path / name), data)
    with pytest.raises(UsageError, match=message) as caught:
        expand_inputs([str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_what_a_list_names_does_not_count_as_replaced():
    listed, found = Source("/a.jpg", -1, "", "image"), Source("/a.jpg", 5, "x", "image")
    assert found.was_replaced(5, "y")
    assert found.was_replaced(6, "x")
    assert not found.was_replaced(5, "x")
    assert not found.was_replaced(listed.size, listed.etag)
    assert not listed.was_replaced(found.size, found.etag)


def test_a_column_of_uris_that_cannot_be_read_is_one_line(tmp_path):
    table = pa.table({"url": [f"{tmp_path}/{number}.jpg" for number in range(500)]})
    data = bytearray(parquet_of(table, use_dictionary=False))
    data[4:900] = bytes(896)
    put(str(tmp_path / "list.parquet"), bytes(data))
    with pytest.raises(UsageError, match=r"list\.parquet: the column url cannot be read: "):
        expand_inputs([str(tmp_path / "list.parquet")])


def test_uris_that_are_no_utf8_are_one_line(tmp_path):
    names = pa.array([b"a.jpg", b"caf\xe9.jpg"], pa.binary())
    urls = pa.StringArray.from_buffers(2, *names.buffers()[1:])
    put(str(tmp_path / "list.parquet"), parquet_of(pa.table({"url": urls})))
    put(str(tmp_path / "list.jsonl"), b'{"url": "a.jpg"}\n{"url": "\\ud800.jpg"}\n')
    for name in ("list.parquet", "list.jsonl"):
        with pytest.raises(UsageError, match=r"entry 2 \(.*\.jpg'\) is not valid Unicode"):
            expand_inputs([str(tmp_path / name)])
