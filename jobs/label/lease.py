"""One driver per OUTPUT: a small object that its holder keeps rewriting.

A lease is alive while it changes. Another driver watches it for `TIMEOUT_SECONDS` by its own clock, so clocks need not
agree. Only a lease that did not change for that long, or whose holder is known to be dead on this very machine, is
taken over. The take-over is a conditional put, so that at most one of several contenders wins.

A holder that was stopped for a while cannot know whether another driver took the lease over. So it counts the lease as
lost once its own last renewal is older than `LOST_SECONDS`, by a clock that also runs while the machine sleeps. It
holds the lease again only if a conditional put proves that no other driver has written it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from jobs import storage
from jobs.label.fence import TAKEN_OVER, Fence
from jobs.runtime.errors import JobError

RENEW_SECONDS = 5.0
LOST_SECONDS = 20.0
TIMEOUT_SECONDS = 30.0

#: Linux stops the monotonic clock while the machine sleeps, but not CLOCK_BOOTTIME. Elsewhere the monotonic one runs on
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. `boot` names one start of the machine, because a pid has a meaning only within it."""

    owner: str
    host: str
    pid: int
    boot: str
    renewals: int

    def to_bytes(self) -> bytes:
        """The content of the lease object."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Holder:
        """The inverse of `to_bytes`."""
        return cls(**json.loads(data))

    def describe(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_known_dead(self) -> bool:
        """True only if the holder ran on this machine and its process is gone."""
        if self.host != socket.gethostname() or self.boot != _boot_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _now() -> float:
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class LeaseSeen(Fence):
    """The lease for a worker that acts for the driver `owner`. Every check reads the lease object."""

    uri: str
    owner: str

    def check(self) -> None:
        """Raise `JobError` if the driver no longer holds the lease."""
        found = storage.read_versioned(self.uri)
        if found is None or Holder.from_bytes(found[0]).owner != self.owner:
            raise JobError(TAKEN_OVER)


class Lease(Fence):
    """The lease is held within the `with` block. Entering raises `JobError` if another driver holds it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._holder = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _boot_id(), 0)
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._renewing = threading.Lock()
        self._renewed = _now()
        self._lost = False

    def __enter__(self) -> Lease:
        self._renewed = _now()
        if not storage.put_if_absent(self._uri, self._holder.to_bytes()):
            self._take_over()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join(RENEW_SECONDS)
        if self._lost:
            return
        try:
            self.delete([self._uri])
        except JobError as problem:
            if not self._lost:
                wait = TIMEOUT_SECONDS
                log.warning("could not remove the lease (%s); the next run waits %.0f s for it", problem, wait)

    @property
    def for_workers(self) -> LeaseSeen:
        """The lease as the workers of this driver check it."""
        return LeaseSeen(self._uri, self._holder.owner)

    def check(self) -> None:
        """Return if this driver holds the lease, else raise `JobError`.

        Asks the store only if the last renewal is too old, and raises `storage.TransientStorageError` if the store
        does not answer.
        """
        while not self._lost and _now() - self._renewed > LOST_SECONDS:
            self._renew(storage.Retry())
        if self._lost:
            raise JobError(TAKEN_OVER)

    def _take_over(self) -> None:
        seen: bytes | None = None
        deadline = 0.0
        while True:
            found = storage.read_versioned(self._uri)
            if found is None:
                self._renewed = _now()
                if storage.put_if_absent(self._uri, self._holder.to_bytes()):
                    return
                continue
            data, version = found
            holder = Holder.from_bytes(data)
            if seen is not None and data != seen:
                raise JobError(
                    f"another driver is at work on this OUTPUT ({holder.describe()}); wait for it, or stop it"
                )
            if holder.is_known_dead() or (seen is not None and time.monotonic() > deadline):
                log.info("taking over the lease of %s, which is gone", holder.describe())
                self._renewed = _now()
                if storage.replace_if_unchanged(self._uri, self._holder.to_bytes(), version):
                    return
                continue
            if seen is None:
                log.info("%s held this OUTPUT last; watching whether it is alive", holder.describe())
                # counted from here, after the first request, because that request may have waited long for the store
                deadline = time.monotonic() + TIMEOUT_SECONDS
            seen = data
            time.sleep(min(1.0, TIMEOUT_SECONDS / 4))

    def _keep(self) -> None:
        while not self._lost and not self._stop.wait(RENEW_SECONDS):
            try:
                self._renew(storage.Retry(attempts=3, total_seconds=RENEW_SECONDS, attempt_seconds=LOST_SECONDS))
            except storage.StorageError as error:
                log.warning("could not renew the lease: %s", error)

    def _renew(self, retry: storage.Retry) -> None:
        """Write the lease again if this driver still holds it. Otherwise note that it is lost."""
        with self._renewing:
            # taken before the request: another driver can see the new lease only after this time
            asked = _now()
            found = storage.read_versioned(self._uri, retry=retry)
            if found is None or Holder.from_bytes(found[0]).owner != self._holder.owner:
                self._lost = True
                return
            holder = replace(self._holder, renewals=self._holder.renewals + 1)
            if storage.replace_if_unchanged(self._uri, holder.to_bytes(), found[1], retry=retry):
                self._holder, self._renewed = holder, asked
            else:
                self._lost = True
