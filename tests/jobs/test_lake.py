"""From what the user typed to the bytes of every image, over all kinds of input, on the local disk and on S3."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import lake, storage
from jobs.errors import UsageError
from jobs.lake import ParquetColumns, Problem, Source, expand_inputs, fetch_rows, index_source
from jobs.lake.expand import expand_braces
from jobs.storage import Retry, TransientStorageError

MAX_BYTES = 10 << 20


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3").prefix()


def tar_of(members: list[tuple[str, bytes]], **options) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def parquet_of(table: pa.Table, **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def put(uri: str, data: bytes = b"x") -> Source:
    storage.put_atomic(uri, data)
    return Source(*storage.object_info(uri), lake.kind_of(uri))


def names(sources: list[Source], folder: str) -> list[str]:
    return [source.uri.removeprefix(f"{folder}/") for source in sources]


def fetch(table: pa.Table, **options):
    return fetch_rows(table.to_pylist(), max_bytes=MAX_BYTES, **options)


# ---- inputs


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


# ---- plain images


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


# ---- tar shards


def test_tar_members(folder):
    members = [
        ("0001.json", b"{}"),
        ("0001.jpg", b"first" * 1000),
        ("./sub/0002.left.PNG", b"second"),
        ("sub/0002.right.png", b""),
        ("0001.cls", b"7"),
        ("._0001.jpg", b"macOS"),
        ("inner.tar", tar_of([("hidden.jpg", b"not looked for")])),
        ("0003.webp", b"third" * 100_000),
    ]
    source = put(f"{folder}/shard.tar", tar_of(members))
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
    source = put(str(tmp_path / "s.tar"), tar_of([(name, name.encode()) for name in wild], format=format))
    table = index_source(source)
    assert table["image_id"].to_pylist() == [f"{source.uri}#{name}" for name in wild]
    assert fetch(table) == [name.encode() for name in wild]
    assert os.listdir(tmp_path) == ["s.tar"]


def test_names_that_are_no_utf8(tmp_path):
    data = tar_of([("caf\udce9.jpg", b"latin-1")], format=tarfile.GNU_FORMAT)
    table = index_source(put(str(tmp_path / "s.tar"), data))
    assert table["image_id"].to_pylist() == [f"{tmp_path}/s.tar#caf\\xe9.jpg"]
    assert fetch(table) == [b"latin-1"]


def test_names_that_come_twice(tmp_path):
    same = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg#2.jpg", b"4"), ("a.jpg", b"5")]
    table = index_source(put(str(tmp_path / "s.tar"), tar_of(same)))
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


def test_links_in_a_tar_are_said_to_be_links(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind in (("a.jpg", tarfile.REGTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = (
                kind,
                "a.jpg" * (kind == tarfile.LNKTYPE),
                3 * (kind == tarfile.REGTYPE),
            )
            tar.addfile(info, io.BytesIO(b"abc"))
    data, link = fetch(index_source(put(str(tmp_path / "s.tar"), stream.getvalue())))
    assert data == b"abc"
    assert link.status == "unsupported"


def test_large_and_small_members_need_few_requests(s3, monkeypatch):
    uri = f"{s3.prefix()}/s.tar"
    few_large = [(f"{i}.jpg", bytes([i]) * (12 << 20)) for i in range(5)]
    many_small = [(f"s{i}.jpg", b"%d" % i * 1000) for i in range(2000)]
    source = put(uri, tar_of(few_large + many_small))
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


# ---- broken shards


def rows_of(tmp_path, data: bytes):
    table = index_source(put(str(tmp_path / "s.tar"), data))
    return [
        (row["image_id"].removeprefix(f"{tmp_path}/s.tar"), fetched if isinstance(fetched, bytes) else fetched.status)
        for row, fetched in zip(table.to_pylist(), fetch(table), strict=True)
    ]


THREE = [("a.jpg", b"a" * 700), ("b.jpg", b"b" * 700), ("c.jpg", b"c" * 700)]
WHOLE = [("#a.jpg", b"a" * 700), ("#b.jpg", b"b" * 700), ("#c.jpg", b"c" * 700)]


def test_truncated_tar_gives_what_is_whole(tmp_path):
    data = tar_of(THREE)
    third = 2 * (512 + 1024)
    for cut in (third + 512, third + 600, third + 512 + 699):
        assert rows_of(tmp_path, data[:cut]) == [*WHOLE[:2], ("#c.jpg", "truncated")]
    for cut in (third, third + 100):  # between two members, and within a header
        assert rows_of(tmp_path, data[:cut]) == [*WHOLE[:2], ("", "truncated")]
    for cut in (third + 512 + 700, third + 1536):  # all data, but no end
        assert rows_of(tmp_path, data[:cut]) == [*WHOLE, ("", "truncated")]
    assert rows_of(tmp_path, data[: third + 1536 + 512]) == WHOLE


def test_member_longer_than_its_header_says(tmp_path):
    def lying(name):
        data = bytearray(tar_of([(n, d * 3 if n == name else d) for n, d in [*THREE, ("x.json", b"{}" * 300)]]))
        start = data.index(name.encode())
        info = tarfile.TarInfo(name)
        info.size = 700
        data[start : start + 512] = info.tobuf()[:512]
        return bytes(data)

    for number in range(3):
        expected = [*WHOLE]
        expected[number] = (WHOLE[number][0], "truncated")
        assert rows_of(tmp_path, lying(THREE[number][0])) == expected


def test_member_that_claims_more_than_there_is(tmp_path):
    data = bytearray(tar_of(THREE))
    for claim in (10**10, 8**11 - 1):
        info = tarfile.TarInfo("b.jpg")
        info.size = claim
        data[1536 : 1536 + 512] = info.tobuf(tarfile.GNU_FORMAT)[:512]
        assert rows_of(tmp_path, bytes(data)) == [WHOLE[0], ("#b.jpg", "truncated"), WHOLE[2]]


def test_corrupt_header_in_the_middle(tmp_path):
    data = bytearray(tar_of([THREE[0], ("a.json", b"{}"), *THREE[1:]]))
    start = data.index(b"b.jpg")
    data[start : start + 512] = os.urandom(512)
    assert rows_of(tmp_path, bytes(data)) == [WHOLE[0], ("", "undecodable"), WHOLE[2]]


def test_joined_archives_are_read_as_one(tmp_path):
    assert rows_of(tmp_path, tar_of(THREE[:1]) + tar_of(THREE[1:])) == WHOLE
    assert rows_of(tmp_path, tar_of([])) == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "undecodable"),
        (b"<html>no</html>" * 100, "undecodable"),
        (b"PK\x03\x04" + bytes(1000), "undecodable"),
        (b"short", "truncated"),
        (tar_of(THREE)[:300], "truncated"),
    ],
)
def test_what_is_no_tar_is_one_row(tmp_path, data, status):
    assert rows_of(tmp_path, data) == [("", status)]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars_are_one_row(tmp_path, compression):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert rows_of(tmp_path, stream.getvalue()) == [("", "unsupported")]
    put(str(tmp_path / f"t.tar.{compression}"), stream.getvalue())
    (source,) = expand_inputs([str(tmp_path / "t.*")])
    assert index_source(source)["problem"][0].as_py().startswith("unsupported: ")


def test_extended_headers_are_bounded(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    bomb = info.tobuf(tarfile.GNU_FORMAT)
    assert rows_of(tmp_path, bomb + tar_of(THREE)) == [("", "undecodable"), *WHOLE]
    chain = tarfile.TarInfo("././@LongLink")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 6
    link = chain.tobuf(tarfile.GNU_FORMAT) + b"x.jpg\0" + bytes(506)
    assert rows_of(tmp_path, link * 3000 + tar_of(THREE[:1])) == [("#x.jpg", b"a" * 700)]


def test_random_damage_never_raises_and_ids_stay_unique(tmp_path):
    import random

    chance = random.Random(0)
    whole = tar_of([*THREE, ("long/" * 40 + "d.png", b"d" * 2000), ("e.txt", b"e")], format=tarfile.GNU_FORMAT)
    for _ in range(150):
        data = bytearray(whole[: chance.randrange(1, len(whole))])
        for _ in range(chance.randrange(6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        table = index_source(put(str(tmp_path / "s.tar"), bytes(data)))
        assert len(set(table["image_id"].to_pylist())) == table.num_rows
        assert len(fetch(table)) == table.num_rows


def test_vanished_and_replaced_shards(folder):
    source = put(f"{folder}/s.tar", tar_of(THREE))
    table = index_source(source)
    storage.put_atomic(source.uri, tar_of(THREE[::-1]))
    assert {problem.status for problem in fetch(table)} == {"changed"}
    assert index_source(source)["problem"].to_pylist() == [
        "changed: the object was replaced while it was being indexed"
    ]
    storage.delete_objects([source.uri])
    assert {problem.status for problem in fetch(table)} == {"missing"}
    (row,) = index_source(source).to_pylist()
    assert row["problem"].startswith("missing: ")
    assert (row["image_id"], row["offset"], row["length"]) == (source.uri, 0, 0)
    assert fetch_rows([row], max_bytes=MAX_BYTES)[0].status == "missing"


# ---- Parquet


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


# ---- limits and failures


def test_oversized_images_are_not_asked_for(folder, monkeypatch):
    plain = lake.image_rows([put(f"{folder}/a.jpg", b"x" * 1000)])
    member = index_source(put(f"{folder}/s.tar", tar_of([("a.jpg", b"x" * 1000)])))
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
