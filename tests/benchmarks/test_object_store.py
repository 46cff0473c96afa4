"""The proxy of the measurements, in front of a real store: it counts, throttles, and strikes."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.object_store.proxy import StoreProxy, kind_of


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/bucket/a.jpg", ("GET", False)),
        ("GET", "/bucket?list-type=2&prefix=a", ("LIST", False)),
        ("GET", "/bucket/?prefix=a", ("LIST", False)),
        ("HEAD", "/bucket/a.jpg", ("HEAD", False)),
        ("PUT", "/bucket/a.jpg", ("PUT", True)),
        ("PUT", "/bucket/a.jpg?partNumber=1&uploadId=x", ("PUT", False)),
        ("POST", "/bucket/a.jpg?uploads", ("POST", False)),
        ("POST", "/bucket/a.jpg?uploadId=x", ("POST", True)),
        ("POST", "/bucket?delete", ("DELETE", False)),
        ("DELETE", "/bucket/a.jpg", ("DELETE", False)),
    ],
)
def test_kinds_of_requests(method, target, expected):
    assert kind_of(method, target) == expected


def test_a_put_from_a_source_is_a_copy():
    assert kind_of("PUT", "/bucket/b.jpg", copies=True) == ("COPY", True)


def test_every_request_is_counted(s3):
    folder = s3.prefix("proxy").removeprefix("s3://")
    with StoreProxy(s3.endpoint) as proxy:
        store = s3.filesystem(proxy.endpoint)
        store.pipe_file(f"{folder}/a", b"12345")
        assert store.cat_file(f"{folder}/a") == b"12345"
        store.copy(f"{folder}/a", f"{folder}/b")
        assert [path.rpartition("/")[2] for path in store.find(folder)] == ["a", "b"]
        store.rm([f"{folder}/a", f"{folder}/b"])
    kinds = Counter(request.kind for request in proxy.requests)
    assert kinds["PUT"] == kinds["COPY"] == kinds["DELETE"] == 1
    assert kinds["GET"] >= 1
    assert kinds["LIST"] >= 1
    assert [request.sent for request in proxy.requests if request.kind == "PUT"] == [5]
    assert [request.received for request in proxy.requests if request.kind == "GET"] == [5]


def test_a_throttled_store_answers_503(s3):
    folder = s3.prefix("proxy").removeprefix("s3://")
    with StoreProxy(s3.endpoint) as proxy:
        proxy.throttle(3600)
        with pytest.raises(OSError, match="reduce your request rate"):
            s3.filesystem(proxy.endpoint).pipe_file(f"{folder}/a", b"1")
        proxy.throttle(0)
        s3.filesystem(proxy.endpoint).pipe_file(f"{folder}/a", b"1")
    assert {request.status for request in proxy.requests} == {503, 200}


def test_a_strike_falls_once_after_the_store_was_served(s3):
    folder = s3.prefix("proxy").removeprefix("s3://")
    struck = []
    with StoreProxy(s3.endpoint) as proxy:
        proxy.strike(lambda request: request.kind == "PUT", lambda: struck.append(len(proxy.requests)))
        # the answer is lost, so the client sends the put again
        s3.filesystem(proxy.endpoint).pipe_file(f"{folder}/a", b"1")
    assert struck == [1]
    assert [request.kind for request in proxy.requests].count("PUT") == 2
    assert s3.filesystem().cat_file(f"{folder}/a") == b"1"
