"""Steps under OUTPUT that cannot be taken back, each made only while this driver still holds the lease.

A driver can stand still at any point: its machine sleeps, or somebody stops its process. Another driver may then take
the lease over and finish the work. So every step below asks `check` right before each attempt, and an attempt that
carries no condition ends before another driver could have taken over. What remains is a driver that stands still
between the check and the request itself. For that case objects are created and replaced under a condition of the
store, so that a late write fails, and the number of a part that was replaced is not used again, so that a late deletion
meets nothing. A deletion has no condition: `_SUCCESS` and the left-overs of a cut-off indexing rest on the check alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jobs import storage
from jobs.runtime.errors import JobError

#: one attempt of a step without a condition: with the age of a lease that still counts as held (20 s) it ends before
#: another driver takes the lease over (30 s)
_ATTEMPT_SECONDS = 8.0
#: objects of one request to delete
_DELETE_BATCH = 1000

TAKEN_OVER = "another driver took over this OUTPUT while this one stood still; it goes on with the work, or has done it"


def written_meanwhile(uri: str) -> JobError:
    """The error for an object that is not as this driver left it."""
    return JobError(f"{uri} was written by another driver just now; run the same command again")


class Fence(ABC):
    """The steps that a driver, or a worker for it, takes under OUTPUT while the lease is held.

    All of them raise `JobError` once the lease is lost, and what `jobs.storage` raises.
    """

    @abstractmethod
    def check(self) -> None:
        """Return if the lease is held; else raise `JobError`."""

    def create(self, uri: str, data: bytes) -> None:
        """Write an object that must not be there yet; one with these very bytes is fine.

        Raises `JobError` where another driver has written something else under that name.
        """
        if not storage.put_if_absent(uri, data, retry=self._retry()):
            self._lost_race(uri)

    def replace(self, uri: str, data: bytes, version: str | None) -> None:
        """Write an object that must still have `version`, as `storage.read_versioned` gave it; None for a new one."""
        if version is None:
            self.create(uri, data)
        elif not storage.replace_if_unchanged(uri, data, version, retry=self._retry()):
            self._lost_race(uri)

    def upload(self, path: Path, uri: str) -> None:
        """Write a file of any size from the local disk. The caller asks `check` again afterwards: it may take long."""
        self.check()
        storage.upload_file(path, uri, retry=self._retry())

    def delete(self, uris: Sequence[str]) -> None:
        """Delete objects; those that are gone already are fine."""
        for start in range(0, len(uris), _DELETE_BATCH):
            storage.delete_objects(uris[start : start + _DELETE_BATCH], retry=self._retry(_ATTEMPT_SECONDS))

    def _retry(self, attempt_seconds: float | None = None) -> storage.Retry:
        """A `Retry` that asks `check` now, and again before every further attempt."""
        self.check()
        retry = storage.Retry(sleep=self._sleep)
        if attempt_seconds is not None:
            retry.attempt_seconds = attempt_seconds
        return retry

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self.check()

    def _lost_race(self, uri: str) -> None:
        self.check()
        raise written_meanwhile(uri)


class NoFence(Fence):
    """For measurements, whose OUTPUT nobody else knows."""

    def check(self) -> None:
        """Never raises."""
