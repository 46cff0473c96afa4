"""Large listings are split by folders, and give every object once whatever the shape of the tree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fault_proxy import FaultProxy

from jobs import storage
from jobs.storage import ObjectInfo, Retry
from jobs.storage.listing import is_worth_splitting, iter_in_parallel
from jobs.storage.store import Page


def pages_of(keys: list[str], size: int):
    """A store of these keys that gives `size` entries a page, as S3 does; and the requests made of it."""
    requests: list[tuple[str, bool, str | None]] = []

    def list_page(prefix: str, recursive: bool, token: str | None) -> Page:
        requests.append((prefix, recursive, token))
        entries: list[str] = []
        for key in sorted(key for key in keys if key.startswith(prefix)):
            cut = key.find("/", len(prefix))
            entry = key if recursive or cut < 0 else key[: cut + 1]
            if entry not in entries[-1:]:
                entries.append(entry)
        rest = [entry for entry in entries if token is None or entry > token]
        page, following = rest[:size], rest[size - 1] if len(rest) > size else None
        objects = [ObjectInfo(entry, 0, "") for entry in page if not entry.endswith("/")]
        if recursive:
            cuts = ((entry, entry.find("/", len(prefix))) for entry in page)
            folders = {entry[: cut + 1] for entry, cut in cuts if cut >= 0 and following}
        else:
            folders = {entry for entry in page if entry.endswith("/")}
        return Page(objects, following, tuple(sorted(folders)))

    return list_page, requests


NAMES = st.lists(st.sampled_from(["a", "b", "c.jpg", "", "a-b"]), min_size=1, max_size=4).map("/".join).filter(bool)


# few examples: each one starts threads
@settings(deadline=None, max_examples=30)
@given(st.lists(NAMES, unique=True, max_size=40), st.integers(1, 5), st.sampled_from(["", "a", "a/", "b/"]))
def test_every_object_comes_once(keys, size, prefix):
    list_page, _ = pages_of(keys, size)
    found = sorted(item.uri for item in iter_in_parallel(list_page, prefix))
    assert found == sorted(key for key in keys if key.startswith(prefix) and not key.endswith("/"))


def test_large_folders_are_listed_side_by_side_and_small_ones_are_not():
    large = [f"{folder}/{number:03}" for folder in "abc" for number in range(100)]
    list_page, requests = pages_of(large, 50)
    assert is_worth_splitting(list_page("", True, None))
    requests.clear()
    assert len(list(iter_in_parallel(list_page, ""))) == 300
    assert sorted(requests, key=str)[:2] == [("", False, None), ("a/", True, "a/049")]
    assert len(requests) == 1 + 3 * 2
    small = [f"{folder:03}/{number}" for folder in range(100) for number in range(3)]
    assert not is_worth_splitting(pages_of(small, 50)[0]("", True, None))
    assert not is_worth_splitting(pages_of([f"{number}" for number in range(100)], 50)[0]("", True, None))


def test_an_error_of_one_page_ends_the_listing():
    keys = [f"{folder}/{number:03}" for folder in "abc" for number in range(100)]
    list_page, _ = pages_of(keys, 50)

    def fails_late(prefix: str, recursive: bool, token: str | None) -> Page:
        if token == "b/049":
            raise storage.TransientStorageError("down", "connection")
        return list_page(prefix, recursive, token)

    with pytest.raises(storage.TransientStorageError):
        list(iter_in_parallel(fails_late, ""))


def test_a_large_tree_on_s3(s3, monkeypatch):
    prefix = s3.prefix()
    names = [f"part-{part:06}/unit-{unit:06}" for part in range(3) for unit in range(700)]
    names += ["loose", "a b/+%41", "part-000001/deep/er", "part-000001-beside"]
    uris = sorted(f"{prefix}/{name}" for name in names)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: storage.put_atomic(uri, b""), uris))
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert [item.uri for item in storage.list_objects(prefix)] == uris
        # the first page, the first level, and a request for each of its folders
        assert len(proxy.requests) == 2 + 4
        proxy.fail("slow_down", times=None, method="GET", every=3)
        retry = Retry(first_delay=0.01)
        assert [item.uri for item in storage.list_objects(prefix, "part", retry=retry)] == [
            uri for uri in uris if "/part" in uri
        ]
        assert retry.counts["throttled"] >= 2
        proxy.clear()
        proxy.requests.clear()
        storage.delete_objects(uris)
        assert len(proxy.requests) == 3
    assert storage.list_objects(prefix) == []
