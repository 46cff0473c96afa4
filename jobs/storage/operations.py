"""Reading, writing, listing and deleting objects anywhere, with retries that are limited and counted.

Every function takes the URI of any fsspec scheme or a local path. It takes a `Retry`, whose counts say afterwards which
attempts were repeated; without one it uses a new one. Every function may raise TransientStorageError (the retries are
used up), ObjectMissingError, ObjectChangedError, and StorageError for all other failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from jobs.runtime.errors import JobError, UsageError
from jobs.storage.errors import Failure, ObjectMissingError, RetryableError, TransientStorageError
from jobs.storage.filesystems import open_filesystem, renew_filesystem, split_uri
from jobs.storage.fsspec_store import FsspecStore
from jobs.storage.http import HttpStore
from jobs.storage.listing import is_worth_splitting, iter_in_parallel
from jobs.storage.local import LocalStore
from jobs.storage.retry import Retry
from jobs.storage.s3 import S3Store
from jobs.storage.store import ObjectInfo, Page, Store

Result = TypeVar("Result")


def read_bytes(uri: str, *, etag: str | None = None, size: int | None = None, retry: Retry | None = None) -> bytes:
    """The whole object. With `etag`, raises ObjectChangedError for another version; `size` then checks the length."""

    def read(store: Store, path: str) -> bytes:
        data = store.read(path, 0, None, etag)
        # an answer that was cut off may give its own length as complete, and not every store sends a checksum
        if etag is not None and size is not None and len(data) != size:
            raise RetryableError("short body", f"{len(data)} bytes arrived instead of {size}")
        return data

    return _run(uri, "read", read, retry)


def read_range(uri: str, offset: int, length: int, *, etag: str | None = None, retry: Retry | None = None) -> bytes:
    """Exactly `length` bytes from `offset`; fewer are never returned (a range past the end is ObjectChangedError)."""
    if length <= 0:
        return b""
    return _run(
        uri,
        f"read bytes {offset}–{offset + length - 1} of",
        lambda store, path: store.read(path, offset, length, etag),
        retry,
    )


def read_versioned(uri: str, *, retry: Retry | None = None) -> tuple[bytes, str] | None:
    """The object and the version that `replace_if_unchanged` wants back (not the listed etag); None if missing."""
    try:
        return _run(uri, "read", lambda store, path: store.read_versioned(path), retry)
    except ObjectMissingError:
        return None


def put_atomic(uri: str, data: bytes, *, retry: Retry | None = None) -> None:
    """Write the object. Readers, also after a crash, see the whole old object or the whole new one."""
    _run(uri, "write", lambda store, path: store.put(path, data), retry)


def upload_file(local: Path, uri: str, *, retry: Retry | None = None) -> None:
    """As `put_atomic`, from a file on the local disk."""
    _run(uri, "write", lambda store, path: store.upload(local, path), retry)


def put_if_absent(uri: str, data: bytes, *, retry: Retry | None = None) -> bool:
    """Write the object unless it exists. Of several callers at the same time exactly one gets True.

    When the answer to an attempt is lost, the object may have been written. An object with exactly these bytes
    therefore counts as written by this call: `data` should name its writer.
    """
    return _put_conditionally(uri, data, lambda store, path: store.put_if_absent(path, data), retry)


def replace_if_unchanged(uri: str, data: bytes, version: str, *, retry: Retry | None = None) -> bool:
    """Overwrite the object if it is still the `version` of `read_versioned`; False if it changed or does not exist."""
    return _put_conditionally(
        uri,
        data,
        lambda store, path: store.replace_if_unchanged(path, data, version),
        retry,
    )


def object_info(uri: str, *, retry: Retry | None = None) -> ObjectInfo:
    """Size and etag of one object; raises ObjectMissingError where there is none (a folder is none)."""
    return _run(uri, "find", lambda store, path: store.info(path), retry)


def exists(uri: str, *, retry: Retry | None = None) -> bool:
    """Whether an object of that name exists; asks the store, never a cache."""
    try:
        object_info(uri, retry=retry)
    except ObjectMissingError:
        return False
    return True


def folder_exists(uri: str, *, retry: Retry | None = None) -> bool:
    """Whether there is a folder of that name, or in stores without folders an object below it."""
    try:
        return _run(uri, "find", lambda store, path: store.has_folder(path), retry)
    except ObjectMissingError:
        return False


def iter_objects(
    folder: str, name_prefix: str = "", *, recursive: bool = True, retry: Retry | None = None
) -> Iterator[ObjectInfo]:
    """All objects below `folder` whose path continues with `name_prefix`, page by page, in no order.

    Large folders of a store that lists in pages are listed side by side. Folder markers (names that end in "/") and
    unfinished local writes are left out. A missing folder gives nothing.
    """
    page = _list_page(folder, name_prefix, recursive, None, retry)
    if recursive and is_worth_splitting(page):
        yield from iter_in_parallel(
            lambda prefix, recursive, token: _list_page(folder, prefix, recursive, token, retry), name_prefix
        )
        return
    yield from page.objects
    while page.token is not None:
        page = _list_page(folder, name_prefix, recursive, page.token, retry)
        yield from page.objects


def list_objects(
    folder: str, name_prefix: str = "", *, recursive: bool = True, retry: Retry | None = None
) -> list[ObjectInfo]:
    """As `iter_objects`, sorted by URI."""
    return sorted(iter_objects(folder, name_prefix, recursive=recursive, retry=retry))


def delete_objects(uris: Sequence[str], *, retry: Retry | None = None) -> None:
    """Deletes the objects. One that is missing is no error."""
    by_scheme: dict[str, list[str]] = {}
    for uri in uris:
        by_scheme.setdefault(split_uri(uri)[0], []).append(uri)
    for same_place in by_scheme.values():
        paths = [open_filesystem(uri)[1] for uri in same_place]
        _run(
            same_place[0],
            f"delete {len(paths)} objects such as",
            lambda store, path, paths=paths: store.delete(paths),  # type: ignore[misc]
            retry,
        )


def check_reachable(uri: str) -> None:
    """Return if the store of `uri` answers, else raise within half a minute. Called before a run starts anything.

    Raises JobError if the store is down or refuses, UsageError for a missing bucket or an unknown scheme.
    """
    retry = _short_retry()
    try:
        _list_page(uri, "", False, None, retry)
    except ObjectMissingError as error:
        raise UsageError(str(error)) from None
    except TransientStorageError as error:
        raise JobError(f"the store does not answer: {error}") from None


def _short_retry() -> Retry:
    return Retry(attempts=5, total_seconds=12.0, attempt_seconds=9.0, first_delay=0.5, max_delay=3.0)


def _list_page(folder: str, name_prefix: str, recursive: bool, token: str | None, retry: Retry | None) -> Page:
    return _run(
        folder,
        "list",
        lambda store, path: store.list_page(path, name_prefix, recursive, token),
        retry,
    )


def _put_conditionally(uri: str, data: bytes, put: Callable[[Store, str], bool], retry: Retry | None) -> bool:
    if _run(uri, "write", put, retry):
        return True
    found = read_versioned(uri, retry=retry)
    return found is not None and found[0] == data


def _run(
    uri: str,
    verb: str,
    operation: Callable[[Store, str], Result],
    retry: Retry | None,
) -> Result:
    """One operation with retries. After a refusal or with expired credentials, a new client reads the credentials."""
    retry = retry or Retry()

    def attempt() -> Result:
        return operation(*_store_for(uri, retry.attempt_seconds))

    def renew(failure: Failure) -> None:
        if failure.reason in ("forbidden", "credentials"):
            renew_filesystem(uri)

    return retry.call(attempt, f"{verb} {uri}", renew)


def _store_for(uri: str, timeout: float) -> tuple[Store, str]:
    filesystem, path = open_filesystem(uri)
    scheme = split_uri(uri)[0]
    if scheme == "file":
        return LocalStore(), path
    if scheme == "s3":
        return S3Store(filesystem, timeout), path
    if scheme in ("http", "https"):
        return HttpStore(filesystem, timeout), path
    return FsspecStore(filesystem, scheme), path
