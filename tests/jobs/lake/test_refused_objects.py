"""Objects that the store refuses: one among readable ones becomes a row, a refusal of everything stays transient."""

from __future__ import annotations

import pytest
from support.fault_proxy import FaultProxy
from support.lakes import fetch, parquet_of, put, tar_bytes

from jobs import lake, storage
from jobs.lake import fetch_rows, refusal
from jobs.lake.index import index_source
from jobs.storage import Retry, TransientStorageError, classify


@pytest.fixture
def proxy(s3, monkeypatch):
    monkeypatch.setattr(refusal, "_refusing", set())
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def quick(**options) -> Retry:
    return Retry(first_delay=0.01, max_delay=0.02, **options)


def test_one_object_that_is_refused_among_readable_ones_is_unreadable(proxy, s3):
    prefix = s3.prefix()
    table = lake.image_rows([put(f"{prefix}/{name}.jpg", name.encode()) for name in "abc"])
    rule = proxy.fail("forbidden", times=None, path="b.jpg")
    first, refused, last = fetch(table, retry=quick())
    assert (first, last) == (b"a", b"c")
    assert refused.status == "unreadable"
    assert "403 AccessDenied: Access Denied" in refused.reason
    assert rule.hits >= 10  # all retries first


def test_a_unit_that_is_refused_asks_other_objects_of_the_lake(proxy, s3):
    prefix = s3.prefix()
    table = lake.image_rows([put(f"{prefix}/private/{name}.jpg") for name in "ab"])
    elsewhere = put(f"{prefix}/open/c.jpg").uri
    proxy.fail("forbidden", times=None, path="private/")
    with pytest.raises(TransientStorageError):  # nothing is known to be readable
        fetch(table, retry=quick(attempts=3))
    problems = fetch(table, retry=quick(attempts=3), others=[elsewhere])
    assert [problem.status for problem in problems] == ["unreadable"] * 2


def test_the_next_refused_objects_of_a_store_cost_few_attempts(proxy, s3):
    prefix = s3.prefix()
    table = lake.image_rows([put(f"{prefix}/{name}.jpg") for name in "abcd"])
    proxy.fail("forbidden", times=None, path="a.jpg")
    fetch(table, retry=quick())
    rule = proxy.fail("forbidden", times=None, path="d.jpg")
    assert fetch(table, retry=quick())[3].status == "unreadable"
    assert rule.hits <= 4 + 2


def test_a_store_that_refuses_everything_for_a_while_stays_transient(proxy, s3):
    prefix = s3.prefix()
    sources = [put(f"{prefix}/{name}.jpg", name.encode()) for name in "abc"]
    shard = put(f"{prefix}/s.tar", tar_bytes([("x.jpg", b"x")]))
    proxy.fail("forbidden", times=None)
    for known in (set(), {storage.store_of(prefix)}):
        refusal._refusing.clear()
        refusal._refusing.update(known)
        with pytest.raises(TransientStorageError, match="403 AccessDenied"):
            fetch(lake.image_rows(sources), retry=quick(attempts=3))
        with pytest.raises(TransientStorageError, match="403 AccessDenied"):
            index_source(shard, retry=quick(attempts=3))
    proxy.clear()
    assert fetch(lake.image_rows(sources)) == [b"a", b"b", b"c"]


def test_a_refused_object_is_read_once_the_store_gives_it_again(proxy, s3):
    prefix = s3.prefix()
    table = lake.image_rows([put(f"{prefix}/{name}.jpg", name.encode()) for name in "ab"])
    refusal._refusing.add(storage.store_of(prefix))
    rule = proxy.fail("forbidden", times=5, path="b.jpg")  # ends while other objects are asked
    assert fetch(table, retry=quick(attempts=4)) == [b"a", b"b"]
    assert rule.hits == 5


@pytest.mark.parametrize("kind", ["forbidden", "archived"])
def test_shards_that_are_refused_are_one_row_when_they_are_indexed(proxy, s3, kind):
    import pyarrow as pa

    prefix = s3.prefix()
    put(f"{prefix}/good.tar", tar_bytes([("x.jpg", b"x")]))
    for name, data in (
        ("bad.tar", tar_bytes([("y.jpg", b"y")])),
        ("bad.parquet", parquet_of(pa.table({"image": [b"z"]}))),
    ):
        source = put(f"{prefix}/{name}", data)
        rule = proxy.fail(kind, times=None, method="GET", path=name)
        (row,) = index_source(source, retry=quick(attempts=3)).to_pylist()
        assert rule.hits <= 3 + 2  # the caller's attempts, then twice in turn with another object
        assert row["problem"].startswith("unreadable: ")
        (problem,) = fetch_rows([row], max_bytes=100)
        assert problem.status == "unreadable"
        assert ("AccessDenied" if kind == "forbidden" else "InvalidObjectState") in problem.reason


def test_an_archived_object_is_unreadable_at_once(proxy, s3):
    table = lake.image_rows([put(f"{s3.prefix()}/only.jpg")])
    rule = proxy.fail("archived", times=None, method="GET", path="only.jpg")
    (problem,) = fetch(table)
    assert problem.status == "unreadable"
    assert "403 InvalidObjectState: The operation is not valid for the object's storage class" in problem.reason
    assert rule.hits == 1


def test_azure_says_archived_in_a_code_of_its_own():
    class HttpResponseError(Exception):  # as azure-core has it, which is not installed here
        status_code = 409
        error_code = "BlobArchived"

    assert classify(HttpResponseError("This operation is not permitted on an archived blob.")).kind == "permanent"
