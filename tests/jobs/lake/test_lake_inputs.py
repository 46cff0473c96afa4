"""From what the user typed to the sources of the lake, on the local disk and on S3."""

from __future__ import annotations

from collections import Counter

import pytest
from support.lake_files import put

from jobs import storage
from jobs.lake import Source, expand_inputs, folders_of
from jobs.lake.expand import expand_braces
from jobs.runtime.errors import UsageError


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


def names(sources: list[Source], folder: str) -> list[str]:
    return [source.uri.removeprefix(f"{folder}/") for source in sources]


def test_braces():
    assert expand_braces("a{08..10}b{x,y}") == ["a08bx", "a08by", "a09bx", "a09by", "a10bx", "a10by"]
    assert expand_braces("{2..0}") == ["2", "1", "0"]
    assert expand_braces("{98..101}") == ["98", "99", "100", "101"]
    assert expand_braces("plain{}{x}.tar") == ["plain{}{x}.tar"]
    assert len(expand_braces("{000..099}")) == 100
    with pytest.raises(UsageError, match="gives more than"):
        expand_braces("{0..99999999}")
    with pytest.raises(UsageError, match="no range of numbers"):
        expand_braces("{a..f}.tar")


def test_folder_is_taken_with_all_below_it(folder):
    for name in ("b.tar", "a/2.JPG", "a/1.png", "c.parquet", "notes.txt", "a/deep/x.webp", "README", ".hidden.jpg"):
        put(f"{folder}/{name}")
    ignored = Counter()
    sources = expand_inputs([folder], ignored=ignored)
    assert names(sources, folder) == ["a/1.png", "a/2.JPG", "a/deep/x.webp", "b.tar", "c.parquet"]
    assert [source.kind for source in sources] == ["image", "image", "image", "tar", "parquet"]
    assert ignored == {".txt": 1, "without extension": 1, ".jpg": 1}
    assert expand_inputs([f"{folder}/"]) == sources
    info = storage.object_info(f"{folder}/b.tar")
    assert sources[3] == Source(f"{folder}/b.tar", info.size, info.etag, "tar")


def test_patterns(folder):
    for name in (
        "train-000.tar",
        "train-001.tar",
        "train-010.tar",
        "val/a.jpg",
        "val/b.txt",
        "valid/c.jpg",
        "x[1].jpg",
    ):
        put(f"{folder}/{name}")

    def found(*patterns):
        return names(expand_inputs([f"{folder}/{pattern}" for pattern in patterns]), folder)

    assert found("train-{000..001}.tar") == ["train-000.tar", "train-001.tar"]
    assert found("*.tar") == ["train-000.tar", "train-001.tar", "train-010.tar"]
    assert found("train-00?.tar") == ["train-000.tar", "train-001.tar"]
    assert found("train-0[1]*.tar") == ["train-010.tar"]
    assert found("val*") == ["val/a.jpg", "valid/c.jpg"]
    assert found("**/*.jpg") == ["val/a.jpg", "valid/c.jpg", "x[1].jpg"]
    assert found("*/c.jpg") == ["valid/c.jpg"]
    assert found("val") == ["val/a.jpg"]
    assert found("{valid,val}/") == ["valid/c.jpg", "val/a.jpg"]
    assert found("x[1].jpg") == ["x[1].jpg"]
    assert found("train-010.tar", "train-*.tar") == ["train-010.tar", "train-000.tar", "train-001.tar"]


def test_many_shards_by_braces_cost_one_listing(folder, monkeypatch):
    for number in range(12):
        put(f"{folder}/s-{number:03}.tar")
    monkeypatch.setattr("jobs.lake.expand.object_info", None)
    assert names(expand_inputs([f"{folder}/s-{{000..011}}.tar"]), folder) == [f"s-{n:03}.tar" for n in range(12)]


def test_stores_are_asked_at_the_folder_before_any_pattern():
    inputs = ["s3://lake/shards/{000..099}.tar", "s3://lake/*/a.jpg", "s3://lake/shards/x.tar", "photos/*.jpg"]
    assert folders_of([*inputs, inputs[0]]) == ["s3://lake/shards", "s3://lake", "s3://lake/shards/x.tar"]
    assert folders_of(["s3://{a,b}/shards/*.tar", "s3a://c/x"]) == ["s3://a/shards", "s3://b/shards", "s3://c/x"]
    assert folders_of(["https://host/a.jpg?size=1", "s3://{a,b}", "photos/{1,2}.jpg"]) == []


def test_what_is_not_there_is_said(folder):
    put(f"{folder}/s-000.tar")
    put(f"{folder}/notes/readme.txt")
    for pattern, message in [
        ("nothing", "no object of that name, and none below it"),
        ("*.parquet", "nothing matches"),
        ("s-{000..002}.tar", r"no such object or folder: .*s-001\.tar, .*s-002\.tar"),
        ("notes", r"nothing to label in .*notes: looked for images \(\.jpg .*found only 1 \.txt"),
        ("notes/readme.txt", "found only 1 .txt"),
        ("a**b", r"'\*\*' can only be"),
    ]:
        with pytest.raises(UsageError, match=message) as caught:
            expand_inputs([f"{folder}/{pattern}"])
        assert "\n" not in str(caught.value)


def test_the_output_inside_of_the_lake_is_not_its_input(folder):
    put(f"{folder}/a.jpg")
    put(f"{folder}/labels/labels/part-000000.parquet")
    put(f"{folder}/labels-of-old/b.jpg")
    assert names(expand_inputs([folder], exclude=f"{folder}/labels"), folder) == ["a.jpg", "labels-of-old/b.jpg"]


def test_local_paths_have_one_name(tmp_path, monkeypatch):
    put(str(tmp_path / "a.jpg"))
    monkeypatch.chdir(tmp_path)
    assert [s.uri for s in expand_inputs([".", "a.jpg", f"file://{tmp_path}/a.jpg"])] == [str(tmp_path / "a.jpg")]
