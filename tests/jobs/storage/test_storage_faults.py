"""A store that misbehaves: every fault that may pass is survived and counted, the others end in one line."""

from __future__ import annotations

import io
import tarfile
import time

import pytest
from support.fault_proxy import FaultProxy

from jobs import lake, storage
from jobs.lake import Source, fetch_rows
from jobs.lake.index import index_source
from jobs.runtime.errors import JobError
from jobs.storage import ObjectMissingError, Retry, TransientStorageError

DATA = bytes(range(256)) * 1000


@pytest.fixture
def proxy(s3, monkeypatch):
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def uri(s3):
    uri = f"{s3.prefix()}/object.bin"
    s3.filesystem().pipe_file(uri, DATA)
    return uri


def quick(**options):
    return Retry(first_delay=0.01, max_delay=0.05, **options)


def test_the_proxy_is_no_fault_of_its_own(proxy, s3):
    prefix = s3.prefix()
    names = ["a b.jpg", "ü☃.jpg", "x+y%41&z=1#2.jpg", "deep/er.jpg"]
    for name in names:
        storage.put_atomic(f"{prefix}/{name}", name.encode())
    assert [item.uri for item in storage.list_objects(prefix)] == sorted(f"{prefix}/{name}" for name in names)
    assert [storage.read_bytes(f"{prefix}/{name}") for name in names] == [name.encode() for name in names]
    assert storage.put_if_absent(f"{prefix}/lease", b"me")
    assert not storage.put_if_absent(f"{prefix}/lease", b"you")
    storage.delete_objects([f"{prefix}/{name}" for name in names])
    assert len(storage.list_objects(prefix)) == 1
    assert len(proxy.requests) >= 12


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("slow_down", "throttled"),
        ("server_error", "server error"),
        ("forbidden", "forbidden"),
        ("expired", "credentials"),
        ("reset", "short body"),
        ("short_body", "short body"),
        ("short_length", "short body"),
    ],
)
def test_transient_faults_are_survived_and_counted(proxy, uri, kind, reason):
    rule = proxy.fail(kind, times=3, method="GET", path="object.bin")
    retry = quick()
    assert storage.read_range(uri, 1000, 50_000, retry=retry) == DATA[1000:51_000]
    assert rule.hits == 3
    assert retry.counts == {reason: 3}
    assert len([request for request in proxy.requests if "object.bin" in request[1]]) == 4


def test_a_whole_object_that_is_cut_short_is_noticed_without_a_checksum(proxy, uri, monkeypatch):
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    (listed,) = storage.list_objects(uri.rpartition("/")[0])
    proxy.fail("short_length", times=3, method="GET", path="object.bin")
    retry = quick()
    assert storage.read_bytes(uri, etag=listed.etag, size=listed.size, retry=retry) == DATA
    assert retry.counts == {"short body": 3}


@pytest.mark.parametrize("kind", ["slow_down", "server_error", "forbidden", "reset", "lost_answer"])
def test_every_operation_is_retried(proxy, s3, kind, tmp_path):
    prefix = s3.prefix()
    rule = proxy.fail(kind, times=None, every=2)
    proxy.fail(kind, times=1)  # the first request of all fails too
    retry = quick()
    storage.put_atomic(f"{prefix}/a", b"a", retry=retry)
    (tmp_path / "b").write_bytes(b"b")
    storage.upload_file(tmp_path / "b", f"{prefix}/b", retry=retry)
    assert storage.put_if_absent(f"{prefix}/c", b"c", retry=retry)
    assert not storage.put_if_absent(f"{prefix}/c", b"other", retry=retry)
    data, version = storage.read_versioned(f"{prefix}/c", retry=retry)
    assert storage.replace_if_unchanged(f"{prefix}/c", b"c2", version, retry=retry)
    assert not storage.replace_if_unchanged(f"{prefix}/c", b"c3", version, retry=retry)
    assert storage.exists(f"{prefix}/a", retry=retry)
    assert not storage.exists(f"{prefix}/z", retry=retry)
    assert len(storage.list_objects(prefix, retry=retry)) == 3
    storage.delete_objects([f"{prefix}/a", f"{prefix}/b"], retry=retry)
    assert storage.read_bytes(f"{prefix}/c", retry=retry) == b"c2"
    assert rule.hits > 5
    if kind not in ("reset", "lost_answer"):  # of those, the HTTP client repeats some on its own
        assert sum(retry.counts.values()) == rule.hits + 1


def test_conditional_puts_whose_answer_is_lost_know_their_own(proxy, s3):
    uri = f"{s3.prefix()}/lease"
    proxy.fail("lost_answer", times=1, method="PUT")
    assert storage.put_if_absent(uri, b"mine", retry=quick())
    proxy.fail("lost_answer", times=1, method="PUT")
    assert not storage.put_if_absent(uri, b"theirs", retry=quick())
    _, version = storage.read_versioned(uri)
    proxy.fail("lost_answer", times=1, method="PUT")
    assert storage.replace_if_unchanged(uri, b"mine again", version, retry=quick())
    assert storage.read_bytes(uri) == b"mine again"


def test_a_stall_of_ten_seconds_is_waited_out(proxy, uri):
    rule = proxy.fail("stall", seconds=10)
    retry = quick()
    assert storage.read_bytes(uri, retry=retry) == DATA
    assert (rule.hits, retry.counts) == (1, {})


@pytest.mark.parametrize("kind", ["stall", "stall_body"])
def test_a_stall_without_end_is_cut_off_and_tried_again(proxy, uri, kind, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")  # must not bring botocore's own retries back
    rule = proxy.fail(kind, seconds=600, path="object.bin")
    retry = quick(attempt_seconds=2.0)
    assert storage.read_bytes(uri, retry=retry) == DATA
    assert rule.hits == 1
    assert set(retry.counts) == {"time-out"}


def test_clients_do_not_retry_on_their_own(proxy, uri):
    rule = proxy.fail("slow_down", times=None, path="object.bin")
    with pytest.raises(TransientStorageError, match=r"503 SlowDown: Please reduce .* \(gave up after 4 attempts"):
        storage.read_bytes(uri, retry=quick(attempts=4))
    assert rule.hits == 4


def test_a_listed_object_that_is_gone_is_missing_at_once(proxy, uri):
    rule = proxy.fail("missing", times=None, path="object.bin")
    with pytest.raises(ObjectMissingError, match="404 NoSuchKey"):
        storage.read_bytes(uri, retry=quick())
    assert rule.hits == 1


def test_listing_resumes_in_the_middle(proxy, s3):
    prefix = s3.prefix()
    client = s3.filesystem()
    client.pipe({f"{prefix}/{i:04}": b"" for i in range(1010)})
    rule = proxy.fail("slow_down", times=None, method="GET", every=2)
    retry = quick()
    assert len(storage.list_objects(prefix, retry=retry)) == 1010
    assert rule.hits == 1
    assert len(proxy.requests) == 3


def test_server_restart_in_the_middle(s3, uri):
    retry = Retry(first_delay=0.2)
    s3.kill()
    waited = []

    def start_again(seconds):
        time.sleep(seconds)
        if len(waited) == 2:
            s3.start()
        waited.append(seconds)

    retry.sleep = start_again
    assert storage.read_bytes(uri, retry=retry) == DATA
    assert retry.counts["connection"] >= 3


@pytest.mark.compute
def test_a_store_that_is_down_is_told_within_a_minute(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "itestkey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "itestsecret")
    with pytest.raises(JobError, match="the store does not answer: cannot list s3://bucket/x") as caught:
        storage.check_reachable("s3://bucket/x")
    assert "\n" not in str(caught.value)


def test_a_store_that_says_nothing_is_told_within_a_minute(proxy, s3):
    proxy.fail("stall", times=None, seconds=600)
    started = time.monotonic()
    with pytest.raises(JobError, match="the store does not answer"):
        storage.check_reachable(s3.prefix())
    assert time.monotonic() - started < 60  # what is promised; it takes some 20


# ---- what the lake makes of it


def shard(s3, uri) -> Source:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(20):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 10_000
            tar.addfile(info, io.BytesIO(bytes([number]) * 10_000))
    s3.filesystem().pipe_file(uri, stream.getvalue())
    return Source(*storage.object_info(uri), "tar")


@pytest.mark.parametrize("kind", ["slow_down", "reset", "short_body", "short_length", "forbidden"])
def test_a_storm_costs_no_image(proxy, s3, kind):
    prefix = s3.prefix()
    source = shard(s3, f"{prefix}/s.tar")
    s3.filesystem().pipe({f"{prefix}/{i:02}.jpg": b"%02d" % i * 100 for i in range(20)})
    plain = lake.expand_inputs([f"{prefix}/*.jpg"])
    rule = proxy.fail(kind, times=None, every=2, method="GET")
    proxy.fail(kind, times=2, method="GET")
    retry = quick()
    members = index_source(source, retry=retry)
    images = fetch_rows(members.to_pylist(), max_bytes=1 << 20, retry=retry)
    assert images == [bytes([number]) * 10_000 for number in range(20)]
    images = fetch_rows(lake.image_rows(plain).to_pylist(), max_bytes=1 << 20, retry=retry)
    assert images == [b"%02d" % i * 100 for i in range(20)]
    assert sum(retry.counts.values()) >= rule.hits > 10


def test_what_outlasts_the_retries_becomes_no_row(proxy, s3):
    prefix = s3.prefix()
    rows = index_source(shard(s3, f"{prefix}/s.tar")).to_pylist()
    proxy.fail("forbidden", times=None, path="s.tar")
    with pytest.raises(TransientStorageError, match="403 AccessDenied"):
        fetch_rows(rows, max_bytes=1 << 20, retry=quick(attempts=3))
    proxy.clear()
    proxy.fail("missing", times=None, path="s.tar")
    assert {problem.status for problem in fetch_rows(rows, max_bytes=1 << 20)} == {"missing"}
    proxy.clear()
    assert fetch_rows(rows, max_bytes=1 << 20)[7] == bytes([7]) * 10_000
