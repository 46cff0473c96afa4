"""An object as a read-only file: every read is one range request, checked and retried like any other."""

from __future__ import annotations

import io

from jobs.storage.operations import object_info, read_range
from jobs.storage.retry import Retry


class RangeFile(io.RawIOBase):
    """`size` and `etag` are those of a listing. If the object has changed since, reading raises ObjectChangedError."""

    def __init__(self, uri: str, size: int, etag: str | None, retry: Retry) -> None:
        super().__init__()
        self.uri = uri
        self.size = size
        self._etag = etag
        self._retry = retry
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self.size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        data = read_range(self.uri, self._position, length, etag=self._etag, retry=self._retry)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_file(uri: str, *, retry: Retry | None = None) -> RangeFile:
    """The object as it is now, for readers that seek, such as Parquet's; raises ObjectMissingError."""
    retry = retry or Retry()
    info = object_info(uri, retry=retry)
    return RangeFile(uri, info.size, info.etag, retry)
