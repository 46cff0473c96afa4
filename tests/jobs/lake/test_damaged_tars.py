"""Damaged tar shards: what is whole is found, the rest is one row, and nothing raises."""

from __future__ import annotations

import io
import os
import random
import tarfile

import pytest
from support.lakes import fetch, put, tar_bytes, tar_rows

from jobs.lake import expand_inputs
from jobs.lake.index import index_source

THREE = [(f"{name}.jpg", name.encode() * 700) for name in "abc"]
WHOLE = [(f"#{name}", data) for name, data in THREE]


def test_truncated_tar_gives_what_is_whole(tmp_path):
    data = tar_bytes(THREE)
    third = 2 * (512 + 1024)
    for cut in (third + 512, third + 600, third + 512 + 699):
        assert tar_rows(tmp_path, data[:cut]) == [*WHOLE[:2], ("#c.jpg", "truncated")]
    for cut in (third, third + 100):  # between two members, and within a header
        assert tar_rows(tmp_path, data[:cut]) == [*WHOLE[:2], ("", "truncated")]
    for cut in (third + 512 + 700, third + 1536):  # all data, but no end
        assert tar_rows(tmp_path, data[:cut]) == [*WHOLE, ("", "truncated")]
    assert tar_rows(tmp_path, data[: third + 1536 + 512]) == WHOLE


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
        assert tar_rows(tmp_path, lying(THREE[number][0])) == expected


def test_member_that_claims_more_than_there_is(tmp_path):
    data = bytearray(tar_bytes(THREE))
    for claim in (10**10, 8**11 - 1):
        info = tarfile.TarInfo("b.jpg")
        info.size = claim
        data[1536 : 1536 + 512] = info.tobuf(tarfile.GNU_FORMAT)[:512]
        assert tar_rows(tmp_path, bytes(data)) == [WHOLE[0], ("#b.jpg", "truncated"), WHOLE[2]]


def test_corrupt_header_in_the_middle(tmp_path):
    data = bytearray(tar_bytes([THREE[0], ("a.json", b"{}"), *THREE[1:]]))
    start = data.index(b"b.jpg")
    data[start : start + 512] = os.urandom(512)
    assert tar_rows(tmp_path, bytes(data)) == [WHOLE[0], ("", "undecodable"), WHOLE[2]]


def test_joined_archives_are_read_as_one(tmp_path):
    assert tar_rows(tmp_path, tar_bytes(THREE[:1]) + tar_bytes(THREE[1:])) == WHOLE
    assert tar_rows(tmp_path, tar_bytes([])) == []


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
    assert tar_rows(tmp_path, data) == [("", status)]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars_are_one_row(tmp_path, compression):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert tar_rows(tmp_path, stream.getvalue()) == [("", "unsupported")]
    put(str(tmp_path / f"t.tar.{compression}"), stream.getvalue())
    (source,) = expand_inputs([str(tmp_path / "t.*")])
    assert index_source(source)["problem"][0].as_py().startswith("unsupported: ")


def test_extended_headers_are_bounded(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    bomb = info.tobuf(tarfile.GNU_FORMAT)
    assert tar_rows(tmp_path, bomb + tar_bytes(THREE)) == [("", "undecodable"), *WHOLE]
    chain = tarfile.TarInfo("././@LongLink")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 6
    link = chain.tobuf(tarfile.GNU_FORMAT) + b"x.jpg\0" + bytes(506)
    assert tar_rows(tmp_path, link * 3000 + tar_bytes(THREE[:1])) == [("#x.jpg", b"a" * 700)]


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
    found = tar_rows(tmp_path, stream.getvalue())
    assert ("#a.jpg", b"abc") in found or ("#a.jpg", "truncated") in found
    assert ("#c.jpg", b"abc") in found
