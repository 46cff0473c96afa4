"""Every filesystem of fsspec that has no store of its own here: Google, Azure, Hugging Face, SFTP, memory …"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.storage.errors import ObjectChangedError, RetryableError
from jobs.storage.filesystems import has_scheme
from jobs.storage.store import ObjectInfo, Page


class FsspecStore:
    """Operations through the interface that all fsspec filesystems have.

    Conditional puts are only as atomic as the filesystem makes them. A new object is put with the mode "create" where
    the filesystem knows it. To replace one, its version is compared first, and the new one is written after that.
    """

    def __init__(self, filesystem: Any, scheme: str) -> None:
        self.filesystem = filesystem
        self.scheme = scheme

    def info(self, path: str) -> ObjectInfo:
        return self._object(self.filesystem.info(path))

    def read(self, path: str, offset: int, length: int | None, etag: str | None) -> bytes:
        if etag is not None and self.info(path).etag != etag:
            raise ObjectChangedError(f"{self._uri(path)} changed since it was listed")
        end = None if length is None else offset + length
        data = bytes(self.filesystem.cat_file(path, start=offset or None, end=end))
        if length is not None and len(data) != length:
            if (size := self.info(path).size) < offset + length:
                raise ObjectChangedError(f"{self._uri(path)} has only {size} bytes")
            raise RetryableError("short body", f"{len(data)} bytes arrived instead of {length}")
        return data

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        version = self.info(path).etag
        return bytes(self.filesystem.cat_file(path)), version

    def put(self, path: str, data: bytes) -> None:
        self._make_parent(path)
        self.filesystem.pipe_file(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._make_parent(path)
        try:
            self.filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except TypeError:  # a filesystem without that mode
            if self.filesystem.exists(path):
                return False
            self.filesystem.pipe_file(path, data)
        return True

    def replace_if_unchanged(self, path: str, data: bytes, version: str) -> bool:
        try:
            if self.info(path).etag != version:
                return False
        except FileNotFoundError:
            return False
        self.filesystem.pipe_file(path, data)
        return True

    def upload(self, local: Path, path: str) -> None:
        self._make_parent(path)
        self.filesystem.put_file(str(local), path)

    def list_page(self, folder: str, name_prefix: str, recursive: bool, token: str | None) -> Page:
        try:
            found = self.filesystem.find(folder, detail=True, maxdepth=None if recursive else 1)
        except FileNotFoundError:
            found = {}
        start = f"{folder.rstrip('/')}/{name_prefix}"
        files = [info for name, info in found.items() if name.startswith(start) and info["type"] == "file"]
        return Page([self._object(info) for info in files])

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.rm_file(path)

    def has_folder(self, path: str) -> bool:
        return bool(self.filesystem.isdir(path))

    def _uri(self, path: str) -> str:
        """With the scheme that the user wrote: gcsfs and adlfs call everything gs:// and abfs://."""
        return path if has_scheme(path) else f"{self.scheme}://{path}"

    def _make_parent(self, path: str) -> None:
        self.filesystem.makedirs(self.filesystem._parent(path), exist_ok=True)

    def _object(self, info: dict[str, Any]) -> ObjectInfo:
        size = info.get("size")
        if info.get("type") == "directory":
            raise FileNotFoundError(info["name"])
        token = next((_token(info[name]) for name in _VERSION_FIELDS if info.get(name)), f"size-{size}")
        return ObjectInfo(self._uri(info["name"]), -1 if size is None else size, token)


#: where filesystems say which version of an object it is, most exact first
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "blob_id", "content_md5", "mtime", "LastModified", "updated", "created")


def _token(value: object) -> str:
    if isinstance(value, datetime):
        value = value.timestamp()
    return f"{value:.6f}" if isinstance(value, float) else str(value).strip('"')
