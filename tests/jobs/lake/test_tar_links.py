"""Tar members that are no plain files: links, sparse files, folders and devices, and headers between them."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile

import pytest
from support.lakes import MAX_BYTES, put, tar_bytes, tar_rows

from jobs.lake import fetch_rows
from jobs.lake.index import index_source


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
        found = dict(tar_rows(tmp_path, stream.getvalue()))
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
    assert tar_rows(tmp_path, archive.read_bytes()) == [("#a.jpg", b"before"), ("#b.tif", whole), ("#c.jpg", b"after")]
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
            for _, fetched in tar_rows(tmp_path, bytes(damaged)):
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
    assert tar_rows(tmp_path, stream.getvalue()) == [(f"#{number}.jpg", b"img") for number in range(5)]


def test_an_access_list_between_a_long_name_and_its_file(tmp_path):
    name = "long/" * 40 + "a.jpg"
    data = tar_bytes([(name, b"img")], format=tarfile.PAX_FORMAT)
    header = data.index(b"img") - 512
    acl = tarfile.TarInfo("a.jpg")
    acl.type, acl.size = b"A", 20
    inserted = acl.tobuf(tarfile.USTAR_FORMAT) + b"1000001\0user::rw-\0".ljust(512, b"\0")
    assert tar_rows(tmp_path, data[:header] + inserted + data[header:]) == [(f"#{name}", b"img")]


def test_what_is_said_of_a_hard_link_is_one_short_line(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(link("b.jpg", "new\nline " * 500, tarfile.LNKTYPE))
    (row,) = index_source(put(str(tmp_path / "s.tar"), stream.getvalue())).to_pylist()
    assert row["problem"].startswith("unsupported: a hard link to new line new line")
    assert len(row["problem"]) < 300
    assert row["problem"].isprintable()
