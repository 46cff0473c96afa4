"""Steps under OUTPUT that cannot be undone. Each is made only while this driver holds the lease.

A driver can stop at any point: its machine sleeps, or somebody stops its process. Another driver may then take the
lease over and finish the work. So every step calls `check` right before each attempt. A deletion cannot carry a
condition, so each of its attempts is short: it ends before another driver could have taken over.

A driver can still stop between the check and the request. For this case, objects are created and replaced under a
condition that the store checks, so a late write fails. The number of a replaced part is never used again, so a late
deletion finds nothing to delete. Where `_SUCCESS` or the files of an interrupted indexing are deleted, only the check
protects them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jobs import storage
from jobs.runtime.errors import JobError

#: longest attempt of a deletion. A lease counts as held for 20 s after its last renewal, and another driver takes it
#: over after 30 s: 20 + 8 is less than 30
_ATTEMPT_SECONDS = 8.0
#: most objects in one request to delete
_DELETE_BATCH = 1000

TAKEN_OVER = "another driver took over this OUTPUT while this one stood still; it goes on with the work, or has done it"


def written_meanwhile(uri: str) -> JobError:
    """The error for an object that another driver has changed."""
    return JobError(f"{uri} was written by another driver just now; run the same command again")


class Fence(ABC):
    """The steps under OUTPUT that a driver or one of its workers takes while the driver holds the lease.

    All of them raise `JobError` once the lease is lost, and what `jobs.storage` raises.
    """

    @abstractmethod
    def check(self) -> None:
        """Return if the lease is held; else raise `JobError`."""

    def create(self, uri: str, data: bytes) -> None:
        """Write an object that must not exist yet. An object with exactly these bytes is accepted.

        Raises `JobError` if another driver has written other bytes under that name.
        """
        if not storage.put_if_absent(uri, data, retry=self._retry()):
            self._lost_race(uri)

    def replace(self, uri: str, data: bytes, version: str | None) -> None:
        """Write an object that must still have `version`, from `storage.read_versioned`. None: a new object."""
        if version is None:
            self.create(uri, data)
        elif not storage.replace_if_unchanged(uri, data, version, retry=self._retry()):
            self._lost_race(uri)

    def upload(self, path: Path, uri: str) -> None:
        """Write a file of any size from the local disk. This may take long: the caller calls `check` again after it."""
        self.check()
        storage.upload_file(path, uri, retry=self._retry())

    def delete(self, uris: Sequence[str]) -> None:
        """Delete objects. Objects that do not exist are ignored."""
        for start in range(0, len(uris), _DELETE_BATCH):
            storage.delete_objects(uris[start : start + _DELETE_BATCH], retry=self._retry(_ATTEMPT_SECONDS))

    def _retry(self, attempt_seconds: float | None = None) -> storage.Retry:
        """A `Retry` that calls `check` now and before every further attempt."""
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
    """For measurements and tests, in whose OUTPUT no other driver works."""

    def check(self) -> None:
        """Never raises."""
