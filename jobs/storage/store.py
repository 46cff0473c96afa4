"""The operations of every store. Each is tried once; `jobs.storage.operations` does the retries.

Paths have no scheme, as in fsspec ("bucket/key", "/folder/file").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """One object. `etag` changes with its content: the store's own etag, or time and size of a local file."""

    uri: str
    size: int
    etag: str


class Page(NamedTuple):
    """A piece of a listing.

    `token` asks for the next page, and is None at the end. `folders` are the folders that a listing of one level has,
    or that the objects of a page with others behind it lie in, as what follows the folder that was listed ("photos/").
    Only a store with pages gives them.
    """

    objects: list[ObjectInfo]
    token: str | None = None
    folders: tuple[str, ...] = ()


class Store(Protocol):
    """A kind of store: S3, the local disk, a web server, or what fsspec knows besides."""

    def info(self, path: str) -> ObjectInfo: ...

    def read(self, path: str, offset: int, length: int | None, etag: str | None) -> bytes:
        """`length` bytes from `offset`, or all bytes from there on. A short body raises RetryableError."""
        ...

    def read_versioned(self, path: str) -> tuple[bytes, str]: ...

    def put(self, path: str, data: bytes) -> None: ...

    def put_if_absent(self, path: str, data: bytes) -> bool: ...

    def replace_if_unchanged(self, path: str, data: bytes, version: str) -> bool: ...

    def upload(self, local: Path, path: str) -> None: ...

    def list_page(self, folder: str, name_prefix: str, recursive: bool, token: str | None) -> Page:
        """Some objects below `folder` whose path continues with `name_prefix`."""
        ...

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder of that name, or any object below it."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes the objects. One that is missing is no error."""
        ...
