"""One driver per OUTPUT: a small object that its holder keeps rewriting.

A lease is alive while it changes. Another driver watches it for `TIMEOUT_SECONDS` by its own clock, so clocks need not
agree; only a lease that stood still that long, or whose holder is known to be dead on this very machine, is taken
over, by a conditional put that at most one of several contenders wins. A driver that slips through all the same does no
harm: it writes the same objects with the same content.
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
from jobs.runtime.errors import JobError

RENEW_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. `boot` tells one start of a machine from the next, so that a pid means something."""

    owner: str
    host: str
    pid: int
    boot: str
    renewals: int

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

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


class Lease:
    """Held within its `with` block. Raises `JobError` where another driver holds it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._holder = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _boot_id(), 0)
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.lost = False

    def __enter__(self) -> Lease:
        if not storage.put_if_absent(self._uri, self._holder.to_bytes()):
            self._take_over()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join(RENEW_SECONDS)
        if not self.lost:
            try:
                storage.delete_objects([self._uri])
            except storage.StorageError:
                log.warning("could not remove the lease; the next run waits %.0f s for it", TIMEOUT_SECONDS)

    def check(self) -> None:
        """Raise `JobError` if another driver has taken the lease over meanwhile."""
        if self.lost:
            raise JobError("another driver took over this OUTPUT while this one stood still; it goes on with the work")

    def _take_over(self) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        seen = None
        while True:
            found = storage.read_versioned(self._uri)
            if found is None:
                if storage.put_if_absent(self._uri, self._holder.to_bytes()):
                    return
                continue
            data, version = found
            holder = Holder(**json.loads(data))
            if seen is not None and data != seen:
                raise JobError(
                    f"another driver is at work on this OUTPUT ({holder.describe()}); wait for it, or stop it"
                )
            if holder.is_known_dead() or time.monotonic() > deadline:
                log.info("taking over the lease of %s, which is gone", holder.describe())
                if storage.replace_if_unchanged(self._uri, self._holder.to_bytes(), version):
                    return
                continue
            if seen is None:
                log.info("%s held this OUTPUT last; watching whether it is alive", holder.describe())
            seen = data
            time.sleep(1.0)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                found = storage.read_versioned(self._uri)
                if found is None or Holder(**json.loads(found[0])).owner != self._holder.owner:
                    self.lost = True
                    return
                self._holder = replace(self._holder, renewals=self._holder.renewals + 1)
                if not storage.replace_if_unchanged(self._uri, self._holder.to_bytes(), found[1]):
                    self.lost = True
                    return
            except storage.StorageError as error:
                log.warning("could not renew the lease: %s", error)
