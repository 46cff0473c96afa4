"""The local disk, used like an object store: a file exists whole or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from jobs.storage.errors import ObjectChangedError, RetryableError
from jobs.storage.filesystems import disk_path, printable_path
from jobs.storage.store import ObjectInfo, Page

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"^\.[0-9a-f]{32}\.tmp$")
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """Files, under absolute paths."""

    def info(self, path: str) -> ObjectInfo:
        status = os.stat(disk_path(path))
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        return _object(path, status)

    def read(self, path: str, offset: int, length: int | None, etag: str | None) -> bytes:
        with open(disk_path(path), "rb") as file:
            now = _object(path, os.fstat(file.fileno()))
            if etag is not None and now.etag != etag:
                raise ObjectChangedError(f"{path} changed since it was listed")
            if length is not None and now.size < offset + length:
                raise ObjectChangedError(f"{path} has only {now.size} of {offset + length} bytes")
            file.seek(offset)
            data = file.read() if length is None else file.read(length)
        if length is not None and len(data) != length:
            raise RetryableError("short body", f"{len(data)} bytes read instead of {length}")
        return data

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        data = Path(path).read_bytes()
        return data, _digest(data)

    def put(self, path: str, data: bytes) -> None:
        with _temporary_beside(path) as (file, temporary):
            file.write(data)
            _flush(file)
            os.replace(temporary, path)
        _flush_folder(path)

    def upload(self, local: Path, path: str) -> None:
        with open(local, "rb") as source, _temporary_beside(path) as (file, temporary):
            shutil.copyfileobj(source, file, 1 << 20)
            _flush(file)
            os.replace(temporary, path)
        _flush_folder(path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with _temporary_beside(path) as (file, temporary):
            file.write(data)
            _flush(file)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return _create(path, data)
        _flush_folder(path)
        return True

    def replace_if_unchanged(self, path: str, data: bytes, version: str) -> bool:
        """Locks the file. A caller that waited for the lock finds that the path is another file now, and gives up."""
        try:
            file = open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return False
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still_at(path, file) or _digest(file.read()) != version:
                return False
            self.put(path, data)
        return True

    def list_page(self, folder: str, name_prefix: str, recursive: bool, token: str | None) -> Page:
        top, _, name_start = f"{folder.rstrip('/')}/{name_prefix}".rpartition("/")
        return Page(list(_walk(disk_path(top or "/"), name_start, recursive, ())))

    def has_folder(self, path: str) -> bool:
        return os.path.isdir(disk_path(path))

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _walk(folder: str, name_start: str, recursive: bool, above: tuple[tuple[int, int], ...]) -> Iterator[ObjectInfo]:
    """Files below `folder`. Links are followed, but never back into a folder of `above`, which is being walked.

    A folder below it that may not be read is left out with a warning. Raises OSError if this holds for `folder` itself.
    """
    try:
        entries = list(os.scandir(folder))
        status = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        if not above:
            raise
        log.warning("left out the folder %s: %s", printable_path(folder), error.strerror)
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if not printable_path(entry.name).startswith(name_start) or _TEMPORARY.match(entry.name):
            continue
        if entry.is_dir():
            if recursive:
                yield from _walk(entry.path, "", recursive, (*above, here))
        elif entry.is_file():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield _object(printable_path(entry.path), entry.stat())


def _object(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _temporary_beside(path: str) -> Iterator[tuple[IO[bytes], str]]:
    """A new file in the folder of `path`; the folder is made if it is missing. A file that is left over is removed."""
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    os.makedirs(folder, exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            yield file, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _create(path: str, data: bytes) -> bool:
    """Create a file on a disk without hard links: only one caller can, but a crash may leave a short file."""
    try:
        with open(path, "xb") as file:
            file.write(data)
            _flush(file)
    except FileExistsError:
        return False
    return True


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_still_at(path: str, file: IO[bytes]) -> bool:
    mine = os.fstat(file.fileno())
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
