"""Lines of text on their way from a training worker to the terminal of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray

#: a Ray actor handle of `LineQueue`; Ray gives handles no type of their own
LineQueueHandle = Any


def print_line(line: str) -> None:
    """Print a line at once, also where stdout is a file or a pipe."""
    print(line, flush=True)


class LineQueue:
    """Ray actor that keeps the lines of a worker until the driver takes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def take_all(self) -> list[str]:
        """The lines since the last call, oldest first."""
        lines, self._lines = self._lines, []
        return lines


def start_line_queue() -> LineQueueHandle:
    """Start the actor; it needs no CPU of its own."""
    return ray.remote(num_cpus=0)(LineQueue).remote()


class LinePrinter:
    """Context in which a thread prints the lines of a queue while the driver waits for the training."""

    def __init__(self, queue: LineQueueHandle, print_line: Callable[[str], None], interval_s: float = 0.5) -> None:
        self.queue, self.print_line, self.interval_s = queue, print_line, interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._print_until_done, daemon=True)

    def __enter__(self) -> LinePrinter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._print_waiting()

    def _print_until_done(self) -> None:
        while not self._done.wait(self.interval_s):
            self._print_waiting()

    def _print_waiting(self) -> None:
        for line in ray.get(self.queue.take_all.remote()):
            self.print_line(line)
