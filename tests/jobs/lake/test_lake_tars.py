"""Tar shards: every image found with its place, whatever the names and however broken the archive."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile

import pytest
from support.lakes import MAX_BYTES, fetch, put, tar_bytes

from jobs import lake, storage
from jobs.lake import expand_inputs, fetch_rows
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


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_in_a_tar(tmp_path):
    """A hard link has the bytes of the file that it names, as tarfile extracts it; a symbolic link has none."""
    long_name = "long/" * 40 + "a.jpg"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
            for name, data in (("a.jpg", b"abc"), (long_name, b"long"), ("blobs/1", b"blob")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, target in (("b.jpg", "./a.jpg"), ("c.jpg", long_name), ("d.jpg", "blobs/1"), ("e.jpg", "b.jpg")):
                tar.addfile(link(name, target, tarfile.LNKTYPE))
            tar.addfile(link("f.jpg", "elsewhere.jpg", tarfile.LNKTYPE))
            tar.addfile(link("g.jpg", "a.jpg", tarfile.SYMTYPE))
            tar.addfile(link("h.jpg", "", tarfile.DIRTYPE))
        found = dict(rows_of(tmp_path, stream.getvalue()))
        assert found == {
            "#a.jpg": b"abc", f"#{long_name}": b"long", "#b.jpg": b"abc", "#c.jpg": b"long", "#d.jpg": b"blob",
            "#e.jpg": b"abc", "#f.jpg": "unsupported", "#g.jpg": "unsupported",
        }  # fmt: skip
        with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
            for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg"):
                assert tar.extractfile(name).read() == found[f"#{name}"]


def sparse_file(path, pieces: int) -> bytes:
    """A file with `pieces` stretches of data between holes, the last of them a hole."""
    block = 1 << 16
    with open(path, "wb") as file:
        for number in range(pieces):
            file.seek(number * 2 * block)
            file.write(bytes([number + 1]) * 5000)
        file.truncate((2 * pieces + 1) * block)
    return path.read_bytes()


@pytest.mark.parametrize("pieces", [0, 1, 3, 4, 5, 25, 26, 60])
@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_members(tmp_path, version, pieces):
    """As GNU tar writes them; its own extraction says what they hold."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"before")
    whole = sparse_file(folder / "b.tif", pieces)
    (folder / "c.jpg").write_bytes(b"after")
    format = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    archive = tmp_path / "s.tar"
    subprocess.run(
        ["tar", "-S", "--hole-detection=raw", *format, "-cf", archive, "-C", folder, "a.jpg", "b.tif", "c.jpg"],
        check=True,
    )
    assert archive.stat().st_size < len(whole) or pieces == 0
    extracted = subprocess.run(["tar", "-xOf", archive, "b.tif"], check=True, capture_output=True).stdout
    assert extracted == whole
    assert rows_of(tmp_path, archive.read_bytes()) == [("#a.jpg", b"before"), ("#b.tif", whole), ("#c.jpg", b"after")]
    row = index_source(put(str(archive), archive.read_bytes())).to_pylist()[1]
    (problem,) = fetch_rows([row], max_bytes=1000)
    assert problem == ("too_large", f"{len(whole)} bytes, 1000 allowed")


def test_damaged_sparse_members_never_raise(tmp_path):
    chance = random.Random(1)
    for version in ("gnu", "0.1", "1.0"):
        whole = sparse_file(tmp_path / "b.tif", 9)
        format = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
        command = ["tar", "-S", "--hole-detection=raw", *format, "-cf", "-", "-C", tmp_path, "b.tif"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        for _ in range(60):
            damaged = bytearray(data[: chance.randrange(600, len(data))])
            for _ in range(chance.randrange(1, 6)):
                damaged[chance.randrange(min(4096, len(damaged)))] = chance.choice(b"0123456789\n\xff")
            for _, fetched in rows_of(tmp_path, bytes(damaged)):
                assert isinstance(fetched, str) or len(fetched) <= max(MAX_BYTES, len(whole))


def test_entries_that_are_no_files_of_their_own(tmp_path):
    """Solaris' tar puts an access list (type A) before the file that it is of, under the same name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number, kind in enumerate((b"A", b"E", b"D", b"V", b"N")):
            extra = tarfile.TarInfo(f"{number}.jpg")
            extra.type = kind
            body = b"1000007\0user::rw-,group::r--,mask:r--,other:r--\0"
            header = extra.tobuf(tarfile.GNU_FORMAT)
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 3
            if kind != b"V":
                extra.size = len(body)
                header = extra.tobuf(tarfile.GNU_FORMAT) + body.ljust(512, b"\0")
            tar.fileobj.write(header)
            tar.addfile(info, io.BytesIO(b"img"))
    assert rows_of(tmp_path, stream.getvalue()) == [(f"#{number}.jpg", b"img") for number in range(5)]


def test_an_access_list_between_a_long_name_and_its_file(tmp_path):
    name = "long/" * 40 + "a.jpg"
    data = tar_bytes([(name, b"img")], format=tarfile.PAX_FORMAT)
    header = data.index(b"img") - 512
    acl = tarfile.TarInfo("a.jpg")
    acl.type, acl.size = b"A", 20
    inserted = acl.tobuf(tarfile.USTAR_FORMAT) + b"1000001\0user::rw-\0".ljust(512, b"\0")
    assert rows_of(tmp_path, data[:header] + inserted + data[header:]) == [(f"#{name}", b"img")]


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


def rows_of(tmp_path, data: bytes):
    table = index_source(put(str(tmp_path / "s.tar"), data))
    return [
        (row["image_id"].removeprefix(f"{tmp_path}/s.tar"), fetched if isinstance(fetched, bytes) else fetched.status)
        for row, fetched in zip(table.to_pylist(), fetch(table), strict=True)
    ]


THREE = [("a.jpg", b"a" * 700), ("b.jpg", b"b" * 700), ("c.jpg", b"c" * 700)]
WHOLE = [("#a.jpg", b"a" * 700), ("#b.jpg", b"b" * 700), ("#c.jpg", b"c" * 700)]


def test_truncated_tar_gives_what_is_whole(tmp_path):
    data = tar_bytes(THREE)
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
        data = bytearray(tar_bytes([(n, d * 3 if n == name else d) for n, d in [*THREE, ("x.json", b"{}" * 300)]]))
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
    data = bytearray(tar_bytes(THREE))
    for claim in (10**10, 8**11 - 1):
        info = tarfile.TarInfo("b.jpg")
        info.size = claim
        data[1536 : 1536 + 512] = info.tobuf(tarfile.GNU_FORMAT)[:512]
        assert rows_of(tmp_path, bytes(data)) == [WHOLE[0], ("#b.jpg", "truncated"), WHOLE[2]]


def test_corrupt_header_in_the_middle(tmp_path):
    data = bytearray(tar_bytes([THREE[0], ("a.json", b"{}"), *THREE[1:]]))
    start = data.index(b"b.jpg")
    data[start : start + 512] = os.urandom(512)
    assert rows_of(tmp_path, bytes(data)) == [WHOLE[0], ("", "undecodable"), WHOLE[2]]


def test_joined_archives_are_read_as_one(tmp_path):
    assert rows_of(tmp_path, tar_bytes(THREE[:1]) + tar_bytes(THREE[1:])) == WHOLE
    assert rows_of(tmp_path, tar_bytes([])) == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "undecodable"),
        (b"<html>no</html>" * 100, "undecodable"),
        (b"PK\x03\x04" + bytes(1000), "undecodable"),
        (b"short", "truncated"),
        (tar_bytes(THREE)[:300], "truncated"),
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
    assert rows_of(tmp_path, bomb + tar_bytes(THREE)) == [("", "undecodable"), *WHOLE]
    chain = tarfile.TarInfo("././@LongLink")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 6
    link = chain.tobuf(tarfile.GNU_FORMAT) + b"x.jpg\0" + bytes(506)
    assert rows_of(tmp_path, link * 3000 + tar_bytes(THREE[:1])) == [("#x.jpg", b"a" * 700)]


def test_random_damage_never_raises_and_ids_stay_unique(tmp_path):
    chance = random.Random(0)
    whole = tar_bytes([*THREE, ("long/" * 40 + "d.png", b"d" * 2000), ("e.txt", b"e")], format=tarfile.GNU_FORMAT)
    for _ in range(150):
        data = bytearray(whole[: chance.randrange(1, len(whole))])
        for _ in range(chance.randrange(6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        table = index_source(put(str(tmp_path / "s.tar"), bytes(data)))
        assert len(set(table["image_id"].to_pylist())) == table.num_rows
        assert len(fetch(table)) == table.num_rows


def test_vanished_and_replaced_shards(folder):
    source = put(f"{folder}/s.tar", tar_bytes(THREE))
    table = index_source(source)
    storage.put_atomic(source.uri, tar_bytes(THREE[::-1]))
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


@pytest.mark.parametrize("size", [1 << 60, 10**30, 10**4000], ids=["2**60", "10**30", "10**4000"])
def test_a_size_that_no_file_has(tmp_path, size):
    """The index holds sizes as 64-bit numbers; the member is lost, those beside it are not."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            if name == "b.jpg":
                info.pax_headers = {"size": str(size)}
            tar.addfile(info, io.BytesIO(b"abc"))
    found = rows_of(tmp_path, stream.getvalue())
    assert ("#a.jpg", b"abc") in found or ("#a.jpg", "truncated") in found
    assert ("#c.jpg", b"abc") in found


def test_what_is_said_of_a_hard_link_is_one_short_line(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(link("b.jpg", "new\nline " * 500, tarfile.LNKTYPE))
    (row,) = index_source(put(str(tmp_path / "s.tar"), stream.getvalue())).to_pylist()
    assert row["problem"].startswith("unsupported: a hard link to new line new line")
    assert len(row["problem"]) < 300
    assert row["problem"].isprintable()
