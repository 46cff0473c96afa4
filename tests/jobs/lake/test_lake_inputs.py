"""Expanding the inputs that a user typed into the sources of the lake, on the local disk and on S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.lakes import fetch, parquet_of, put, tar_bytes

from jobs import lake, storage
from jobs.lake import PassedOver, Source, expand_inputs, folders_of, index_source
from jobs.lake.patterns import expand_braces
from jobs.runtime.errors import UsageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store)])
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
    assert ignored == {".txt": 1, "without extension": 1, "hidden": 1}
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


def test_what_exists_under_the_very_name_wins_over_a_pattern(folder):
    for name in (
        "set [2020]/a.jpg", "set 2/b.jpg", "x{1,2}.jpg", "x1.jpg", "x2.jpg", "d{a,b}/sub/c.jpg", "da/sub/d.jpg",
        "what?/e.jpg", "whatx/f.jpg", "star*.jpg", "start.jpg",
    ):  # fmt: skip
        put(f"{folder}/{name}")

    def found(pattern):
        return names(expand_inputs([f"{folder}/{pattern}"]), folder)

    assert found("set [2020]") == found("set [2020]/") == found("set [2020]/*.jpg") == ["set [2020]/a.jpg"]
    assert found("set [2]") == ["set 2/b.jpg"]
    assert found("x{1,2}.jpg") == ["x{1,2}.jpg"]
    assert found("x{2,1}.jp[g]") == ["x2.jpg", "x1.jpg"]
    assert found("d{a,b}") == found("d{a,b}/*/{c,c}.jpg") == ["d{a,b}/sub/c.jpg"]
    assert found("what?") == ["what?/e.jpg"]
    assert found("wha*") == ["what?/e.jpg", "whatx/f.jpg"]
    assert found("star*.jpg") == ["star*.jpg"]
    # the escape: a special character in brackets stands for itself
    assert found("set [[]2020]/a.jpg") == ["set [2020]/a.jpg"]
    assert found("x[{]1,2}.jpg") == ["x{1,2}.jpg"]
    assert found("what[?]/*") == ["what?/e.jpg"]
    assert found("sta[r][*].jpg") == ["star*.jpg"]


def test_a_bucket_is_a_folder_with_and_without_a_slash(s3):
    name = s3.prefix().rpartition("/")[2]
    put(f"s3://{s3.bucket}/{name}/a.jpg")
    for uri in (f"s3://{s3.bucket}", f"s3://{s3.bucket}/", f"s3a://{s3.bucket}"):
        assert f"s3://{s3.bucket}/{name}/a.jpg" in [source.uri for source in expand_inputs([uri])]


def test_an_empty_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(str(tmp_path / "a.jpg"))
    for empty in ("", "  "):
        for take in (expand_inputs, folders_of):
            with pytest.raises(UsageError, match="an INPUT is empty"):
                take([".", empty])


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(str(tmp_path / "lake" / "a.tar"), b"")
    for pattern in ("~/lake/*.tar", "~/lake", "~/lake/{a,a}.tar"):
        assert [s.uri for s in expand_inputs([pattern])] == [str(tmp_path / "lake" / "a.tar")]


def test_schemes_that_need_more_than_an_address_are_one_line(tmp_path):
    for uri in ("dir:///path", "zip://a.png", "nonsense://x", "reference://x"):
        with pytest.raises(UsageError, match=f"cannot open {uri.partition(':')[0]}:// addresses") as caught:
            expand_inputs([uri])
        assert "\n" not in str(caught.value)


def test_file_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9.png"
    (tmp_path / "lake").mkdir()
    with open(os.path.join(os.fsencode(tmp_path / "lake"), name), "wb") as file:
        file.write(b"latin-1")
    deep = os.path.join(os.fsencode(tmp_path / "lake"), b"\xff sub")
    os.mkdir(deep)
    with open(os.path.join(deep, b"x.jpg"), "wb") as file:
        file.write(b"deep")
    put(str(tmp_path / "lake" / "a\\x41.jpg"), b"a backslash")
    expected = {r"caf\xe9.png": b"latin-1", r"\xff sub/x.jpg": b"deep", r"a\x41.jpg": b"a backslash"}
    sources = expand_inputs([str(tmp_path / "lake")])
    table = lake.image_rows(sources)
    assert dict(zip(names(sources, str(tmp_path / "lake")), fetch(table), strict=True)) == expected
    by_name = os.fsdecode(os.path.join(os.fsencode(tmp_path / "lake"), name))
    for one in (by_name, str(tmp_path / "lake" / r"caf\xe9.png"), str(tmp_path / "lake" / "caf*.png")):
        assert fetch(lake.image_rows(expand_inputs([one]))) == [b"latin-1"]
    assert fetch(lake.image_rows(expand_inputs([os.fsdecode(deep)]))) == [b"deep"]


def test_a_folder_that_may_not_be_read_is_told_and_left_out(tmp_path):
    """As another user, for root may read everything."""
    put(str(tmp_path / "lake" / "a.jpg"))
    put(str(tmp_path / "lake" / "lost+found" / "b.jpg"))
    (tmp_path / "lake" / "lost+found").chmod(0o700)
    code = f"""
import logging, os, sys
logging.basicConfig(format="%(message)s")
from jobs.lake import expand_inputs
from jobs.storage import StorageError
if os.geteuid() == 0:
    os.chown({str(tmp_path / "lake" / "lost+found")!r}, 0, 0)
    os.seteuid(65534)
else:
    os.chmod({str(tmp_path / "lake" / "lost+found")!r}, 0)
print([source.uri for source in expand_inputs([{str(tmp_path / "lake")!r}])])
try:
    expand_inputs([{str(tmp_path / "lake" / "lost+found")!r}])
except StorageError as error:
    print(error)
"""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str([str(tmp_path / "lake" / "a.jpg")])
    assert "Permission denied" in done.stdout.splitlines()[1]
    assert f"left out the folder {tmp_path}/lake/lost+found: Permission denied" in done.stderr


def _environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": str(root)}


def test_names_that_say_nothing(folder):
    put(f"{folder}/plain", b"\x89PNG\r\n\x1a\n" + bytes(20))
    put(f"{folder}/shard", tar_bytes([("x.jpg", b"x")]))
    put(f"{folder}/table", parquet_of(pa.table({"image": [b"x"]})))
    put(f"{folder}/new.imgformat", b"\xff\xd8\xff" + bytes(20))
    put(f"{folder}/a.json", b"{}")
    put(f"{folder}/b.heic", b"\0\0\0\x18ftypheic")
    put(f"{folder}/c.jxl", b"\xff\x0a")
    kinds = {name: expand_inputs([f"{folder}/{name}"])[0].kind for name in ("plain", "shard", "table", "new.imgformat")}
    assert kinds == {"plain": "image", "shard": "tar", "table": "parquet", "new.imgformat": "image"}
    ignored = Counter()
    assert names(expand_inputs([folder], ignored=ignored), folder) == ["b.heic"]
    assert ignored == {"without extension": 3, ".json": 1, ".jxl": 1, ".imgformat": 1}
    assert PassedOver(ignored).has_images()
    assert PassedOver(ignored).describe().startswith("3 without extension, 1 .")
    ignored = Counter()
    found = names(expand_inputs([folder], ignored=ignored, any_name=True), folder)
    assert found == ["b.heic", "c.jxl", "new.imgformat", "plain", "shard", "table"]
    assert ignored == {".json": 1}


def test_two_images_never_share_an_id(folder):
    shard = put(f"{folder}/x.tar", tar_bytes([("a.png", b"in the shard"), ("b.tar#c.png", b"odd")]))
    loose = put(f"{folder}/x.tar#a.png", b"loose")
    inner = put(f"{folder}/x.tar#b.tar", tar_bytes([("c.png", b"in the odd shard")]))
    plain = put(f"{folder}/photo #1.png", b"plain")
    table = pa.concat_tables([index_source(source) for source in (shard, loose, inner, plain)])
    found = dict(zip(table["image_id"].to_pylist(), fetch(table), strict=True))
    assert found == {
        f"{folder}/x.tar#a.png": b"in the shard",
        f"{folder}/x.tar#b.tar#c.png": b"odd",
        f"object:{folder}/x.tar#a.png": b"loose",
        f"object:{folder}/x.tar#b.tar#c.png": b"in the odd shard",
        f"{folder}/photo #1.png": b"plain",
    }


class _OtherNames(MemoryFileSystem):
    """As adlfs and gcsfs, which need a cloud: it knows several schemes and calls everything by the first of them."""

    protocol = ("abfs", "az")
    root_marker = ""

    @classmethod
    def _strip_protocol(cls, path):
        return path.rpartition("://")[2].strip("/")

    def _of(self, info):
        return {**info, "name": info["name"].strip("/")}

    def info(self, path, **kwargs):
        return self._of(super().info(f"/{path}"))

    def find(self, path, detail=False, **kwargs):
        return {k.strip("/"): self._of(v) for k, v in super().find(f"/{path}", detail=True, **kwargs).items()}

    def ls(self, path, detail=True, **kwargs):
        return super().ls(f"/{path.strip('/')}", detail=detail)

    def cat_file(self, path, **kwargs):
        return super().cat_file(f"/{path}", **kwargs)

    def pipe_file(self, path, value, **kwargs):
        return super().pipe_file(f"/{path}", value)


def test_objects_keep_the_scheme_that_the_user_wrote():
    fsspec.register_implementation("az", _OtherNames, clobber=True)
    try:
        for name in ("a.png", "b.png", "out/labels/x.png"):
            put(f"az://container/{name}", name.encode())
        sources = expand_inputs(["az://container/*.png"])
        assert [source.uri for source in sources] == ["az://container/a.png", "az://container/b.png"]
        assert fetch(lake.image_rows(sources)) == [b"a.png", b"b.png"]
        whole = expand_inputs(["az://container"], exclude="az://container/out")
        assert [source.uri for source in whole] == ["az://container/a.png", "az://container/b.png"]
    finally:
        del sys.modules["fsspec.registry"]._registry["az"]


def test_local_paths_have_one_name(tmp_path, monkeypatch):
    put(str(tmp_path / "a.jpg"))
    monkeypatch.chdir(tmp_path)
    assert [s.uri for s in expand_inputs([".", "a.jpg", f"file://{tmp_path}/a.jpg"])] == [str(tmp_path / "a.jpg")]
