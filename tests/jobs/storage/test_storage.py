"""Object storage on a real S3 server, the local disk and an fsspec filesystem without a store of its own."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.storage import ObjectChangedError, ObjectMissingError, Retry, StorageError, TransientStorageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.store), "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "lake")
    if request.param == "s3":
        return request.getfixturevalue("s3").prefix()
    return f"memory:///{uuid.uuid4().hex}"


def test_put_read_overwrite_delete(folder):
    uri = f"{folder}/deep/er/a.bin"
    assert not storage.exists(uri)
    storage.put_atomic(uri, b"first")
    storage.put_atomic(uri, b"second one")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"second one"
    assert storage.object_info(uri).size == 10
    storage.delete_objects([uri, f"{folder}/never-there"])
    assert not storage.exists(uri)
    with pytest.raises(ObjectMissingError, match=r"a\.bin"):
        storage.read_bytes(uri)


def test_empty_object(folder):
    storage.put_atomic(f"{folder}/empty", b"")
    assert storage.read_bytes(f"{folder}/empty") == b""
    assert storage.read_range(f"{folder}/empty", 0, 0) == b""


def test_ranges_are_whole_or_an_error(folder):
    uri = f"{folder}/a.bin"
    storage.put_atomic(uri, bytes(range(100)))
    assert storage.read_range(uri, 0, 1) == b"\0"
    assert storage.read_range(uri, 10, 90) == bytes(range(10, 100))
    for offset, length in ((99, 2), (100, 1), (5000, 10)):
        with pytest.raises(ObjectChangedError):
            storage.read_range(uri, offset, length)


def test_reading_another_object_than_the_listed_one_is_noticed(folder):
    uri = f"{folder}/a.bin"
    storage.put_atomic(uri, b"version one")
    etag = storage.object_info(uri).etag
    assert storage.list_objects(folder)[0].etag == etag
    assert storage.read_bytes(uri, etag=etag) == b"version one"
    assert storage.read_range(uri, 8, 3, etag=etag) == b"one"
    storage.put_atomic(uri, b"version two!")
    with pytest.raises(ObjectChangedError):
        storage.read_range(uri, 0, 3, etag=etag)
    with pytest.raises(ObjectChangedError):
        storage.read_bytes(uri, etag=etag)


def test_listing_is_sorted_fresh_and_without_markers(folder):
    names = ["b.tar", "a/2.jpg", "a/10.jpg", "a-b.jpg", "a.jpg", "with space & ünicode\n.jpg", "a/deep/er/x.png"]
    for name in names:
        storage.put_atomic(f"{folder}/{name}", name.encode())
    expected = sorted(f"{folder}/{name}" for name in names)
    listed = storage.list_objects(folder)
    assert [item.uri for item in listed] == expected
    assert [item.size for item in listed] == [len(uri[len(folder) + 1 :].encode()) for uri in expected]
    assert storage.read_bytes(expected[-1]) == expected[-1][len(folder) + 1 :].encode()
    assert [item.uri for item in storage.list_objects(f"{folder}/")] == expected
    assert [item.uri for item in storage.list_objects(f"{folder}/a")] == [u for u in expected if f"{folder}/a/" in u]
    assert [item.uri for item in storage.list_objects(folder, "a")] == [u for u in expected if f"{folder}/a" in u]
    shallow = storage.list_objects(folder, "a", recursive=False)
    assert [item.uri for item in shallow] == [f"{folder}/a-b.jpg", f"{folder}/a.jpg"]
    storage.delete_objects(expected[1:])
    assert [item.uri for item in storage.list_objects(folder)] == expected[:1]
    assert storage.list_objects(f"{folder}/nothing") == []


def test_s3_folder_markers_are_not_objects(s3):
    prefix = s3.prefix()
    client = s3.filesystem()
    client.call_s3("put_object", Bucket=s3.bucket, Key=prefix.split("/", 3)[3] + "/", Body=b"")
    client.pipe_file(f"{prefix}/real.jpg", b"x")
    assert [item.uri for item in storage.list_objects(prefix)] == [f"{prefix}/real.jpg"]


def test_s3_listing_and_deletion_go_on_past_a_thousand(s3):
    prefix = s3.prefix()
    uris = [f"{prefix}/{i:04}" for i in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: storage.put_atomic(uri, b""), uris))
    assert [item.uri for item in storage.list_objects(prefix)] == uris
    storage.delete_objects(uris)
    assert storage.list_objects(prefix) == []


def test_large_objects_become_visible_at_once(s3, tmp_path):
    uri = f"{s3.prefix()}/large.bin"
    data = os.urandom(1 << 20) * 101  # past the size from which uploads go in parts
    storage.put_atomic(uri, data)
    assert storage.object_info(uri).size == len(data)
    assert storage.read_range(uri, len(data) - 5, 5) == data[-5:]
    (tmp_path / "part.parquet").write_bytes(data[: 1 << 20])
    storage.upload_file(tmp_path / "part.parquet", uri)
    assert storage.read_bytes(uri) == data[: 1 << 20]


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.store)])
def test_of_many_creators_one_wins(place, tmp_path, request):
    uri = f"{tmp_path if place == 'local' else request.getfixturevalue('s3').prefix()}/lease"
    barrier = threading.Barrier(8)

    def create(number):
        barrier.wait()
        return storage.put_if_absent(uri, b"owner %d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(uri) == b"owner %d" % won.index(True)


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.store)])
def test_of_many_replacers_one_wins(place, tmp_path, request):
    uri = f"{tmp_path if place == 'local' else request.getfixturevalue('s3').prefix()}/lease"
    storage.put_atomic(uri, b"dead owner")
    barrier = threading.Barrier(8)

    def replace(number):
        _, version = storage.read_versioned(uri)
        barrier.wait()
        return storage.replace_if_unchanged(uri, b"owner %d" % number, version)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(replace, range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(uri) == b"owner %d" % won.index(True)


def test_conditional_puts(folder):
    uri = f"{folder}/lease"
    assert storage.put_if_absent(uri, b"one")
    assert not storage.put_if_absent(uri, b"two")
    data, version = storage.read_versioned(uri)
    assert data == b"one"
    assert storage.replace_if_unchanged(uri, b"three", version)
    assert not storage.replace_if_unchanged(uri, b"four", version)
    assert storage.read_bytes(uri) == b"three"
    storage.delete_objects([uri])
    assert not storage.replace_if_unchanged(uri, b"five", version)
    assert not storage.exists(uri)
    assert storage.read_versioned(uri) is None


def test_an_object_opens_as_a_file(folder):
    uri = f"{folder}/table.parquet"
    table = pa.table({"a": range(100_000), "b": [f"row {i}" for i in range(100_000)]})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=1000)
    storage.put_atomic(uri, stream.getvalue())
    with storage.open_file(uri) as file:
        assert pq.ParquetFile(file).read_row_group(7, columns=["b"])["b"][0].as_py() == "row 7000"
        assert (file.seek(-4, io.SEEK_END), file.read(), file.read()) == (file.size - 4, b"PAR1", b"")
        storage.put_atomic(uri, b"PAR1 another file")
        file.seek(0)
        with pytest.raises(ObjectChangedError):
            file.read(4)


def test_local_writes_leave_nothing_half_done(tmp_path, monkeypatch):
    uri = str(tmp_path / "a.bin")
    storage.put_atomic(uri, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match=r"cannot write .*a\.bin: No space left on device"):
            storage.put_atomic(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_local_listing_survives_link_cycles_and_skips_unfinished_writes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "link.jpg").symlink_to(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    assert [item.uri for item in storage.list_objects(str(tmp_path))] == [
        str(tmp_path / "a" / "link.jpg"),
        str(tmp_path / "a" / "x.jpg"),
    ]


def test_relative_and_file_addresses_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage.put_atomic("sub/a", b"1")
    assert storage.list_objects("sub") == storage.list_objects(f"file://{tmp_path}/sub")
    assert storage.list_objects("sub")[0].uri == str(tmp_path / "sub" / "a")


def test_check_reachable_names_what_is_wrong(s3, tmp_path):
    storage.check_reachable(f"{s3.prefix()}/not/there/yet")
    storage.check_reachable(str(tmp_path / "not" / "there"))
    with pytest.raises(UsageError, match="s3://no-such-bucket/x: 404 NoSuchBucket"):
        storage.check_reachable("s3://no-such-bucket/x")
    with pytest.raises(UsageError, match="nonsense"):
        storage.check_reachable("nonsense://x/y")


def test_what_is_local():
    for uri in ("a/b", "/a/b", "~/a", "file:///a/b", "local:///a", "FILE:///a"):
        assert storage.is_local(uri)
    for uri in ("s3://a/b", "https://host/a", "az://a"):
        assert not storage.is_local(uri)


def test_no_credential_in_messages(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
    with pytest.raises(TransientStorageError, match="403 SignatureDoesNotMatch") as caught:
        storage.read_bytes(f"{s3.prefix()}/x", retry=Retry(attempts=2, first_delay=0.01))
    assert "itestkey" not in str(caught.value)
    assert "wrong-secret-value" not in str(caught.value)
    assert "\n" not in str(caught.value)
    signed = "https://user:pw@host/a.jpg?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP%2F2026&X-Amz-Signature=abcdef&x=1"
    assert storage.without_credentials(f"at {signed} itestkey") == (
        "at https://***@host/a.jpg?X-Amz-Credential=***&X-Amz-Signature=***&x=1 ***"
    )
    assert storage.without_credentials("key AKIAABCDEFGHIJKLMNOP") == "key ***"


def test_errors_travel_between_processes():
    error = TransientStorageError("cannot read s3://b/x: 503 SlowDown", "throttled")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason) == (str(error), "throttled")
    retry = Retry(attempts=3)
    assert pickle.loads(pickle.dumps(retry)) == retry


def test_renewed_credentials_are_picked_up(s3, tmp_path, monkeypatch):
    uri = f"{s3.prefix()}/x"
    storage.put_atomic(uri, b"data")
    shared = tmp_path / "credentials"
    shared.write_text("[default]\naws_access_key_id=itestkey\naws_secret_access_key=outlived\n")
    monkeypatch.setattr("jobs.storage.filesystems._RENEW_SECONDS", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))

    def renew(seconds):
        shared.write_text(shared.read_text().replace("outlived", "itestsecret"))

    retry = Retry(sleep=renew)
    assert storage.read_bytes(uri, retry=retry) == b"data"
    assert retry.counts == {"forbidden": 1}


def test_works_in_forked_and_fresh_children_and_in_threads(s3):
    uri = f"{s3.prefix()}/x"
    storage.put_atomic(uri, b"data")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: storage.read_bytes(uri), range(32))) == {b"data"}
    code = f"""
import asyncio, multiprocessing
from jobs import storage
def check(_=None):
    assert storage.read_bytes({uri!r}) == b"data"
async def inside_a_loop():
    check()
check()
asyncio.run(inside_a_loop())
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(check, range(4))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
