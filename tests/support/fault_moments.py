"""Striking at a named moment of a run: the test's side of `support/faults/sitecustomize.py`."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

Moment = Literal["index", "fetch", "decode", "inference", "commit", "publish"]
MOMENTS: tuple[Moment, ...] = ("index", "fetch", "decode", "inference", "commit", "publish")
#: how often a moment has passed before it counts, so that something is done and something under way when the blow falls
_AFTER: dict[Moment, int] = {"index": 1, "fetch": 2, "decode": 5, "inference": 3, "commit": 3, "publish": 0}


class Moments:
    """The folder that YOLACT_TEST_CONTROL names for the processes of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    @contextmanager
    def armed(self, moment: Moment, needs: str = "") -> Iterator[str]:
        """Arms `moment`, to be announced only when a process of the role `needs` lives; disarms on leaving."""
        number = uuid.uuid4().hex[:8]
        for path in self.folder.glob("*-worker-*"):
            path.unlink()
        for path in self.folder.glob("model-actor-*"):
            path.unlink()
        text = json.dumps({"id": number, "moment": moment, "after": _AFTER[moment], "needs": needs})
        (self.folder / "strike.tmp").write_text(text)
        (self.folder / "strike.tmp").rename(self.folder / "strike.json")
        try:
            yield number
        finally:
            self.release()

    def release(self) -> None:
        """Whoever stands still goes on, if the blow has left it alive."""
        (self.folder / "strike.json").unlink(missing_ok=True)

    def wait(self, number: str, seconds: float = 400.0, command: subprocess.Popen[str] | None = None) -> int:
        """The process that reached the moment and stands still in it; fails at once where `command` has ended."""
        deadline = time.monotonic() + seconds
        path = self.folder / f"{number}-reached"
        while not path.exists():
            if command is not None and command.poll() is not None:
                raise AssertionError(f"ended with {command.returncode} before the moment: {command.communicate()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the moment was not reached within {seconds:.0f} s")
            time.sleep(0.02)
        return int(path.read_text())

    def living(self, role: str) -> list[int]:
        """Processes that have had `role` since the moment was armed and are alive."""
        pids = (int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{role}-*") if path.suffix != ".tmp")
        return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
