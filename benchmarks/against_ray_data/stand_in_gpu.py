"""A GPU that sleeps: it takes a fixed time for an image, costs no CPU, and writes down when it was busy.

Both programs use it, in the process of each model actor. Settings come from the environment, so that workers have them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: milliseconds that an image takes; folder for the records of all GPUs
MILLISECONDS, RECORDS = "STAND_IN_GPU_MS", "STAND_IN_GPU_RECORDS"


class StandInGpu:
    """One GPU. It works on one batch at a time, as a real one does."""

    def __init__(self) -> None:
        self._seconds = float(os.environ[MILLISECONDS]) / 1000
        self._record = Path(os.environ[RECORDS]) / f"{os.getpid()}-{time.time_ns()}"
        self._lock = threading.Lock()

    def run(self, images: int) -> None:
        """Be busy for a batch of `images`."""
        with self._lock:
            begin = time.time()
            time.sleep(images * self._seconds)
            with self._record.open("a") as file:
                file.write(f"{begin} {time.time()} {images}\n")


@dataclass(frozen=True)
class Batch:
    """One batch of one GPU; times are `time.time()`."""

    pid: int
    begin: float
    end: float
    images: int


def read_batches(folder: Path) -> list[Batch]:
    """All batches of all GPUs so far, in the order of their ends."""
    batches = []
    for path in folder.iterdir():
        pid = int(path.name.partition("-")[0])
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                begin, end, images = line.split()
                batches.append(Batch(pid, float(begin), float(end), int(images)))
    return sorted(batches, key=lambda batch: batch.end)


def busy_share(batches: Iterable[Batch], gpus: int) -> float:
    """Share of the time from the first batch's begin to the last one's end in which `gpus` GPUs were busy, 0 to 1."""
    batches = list(batches)
    if not batches:
        return 0.0
    span = max(batch.end for batch in batches) - min(batch.begin for batch in batches)
    return sum(batch.end - batch.begin for batch in batches) / (gpus * span)
