"""Shows the progress of a job: a bar on a terminal, else a line in the log every few seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 5.0

log = logging.getLogger(__name__)


class LabelProgress:
    """Shows how many of `total` images are done. `done` of them were done before this run.

    `update` sets the count. A thread logs the lines, so that they come also while no image is finished.
    """

    def __init__(self, total: int, done: int, title: str = "labelling") -> None:
        self._title = title
        self._total, self._already, self._done, self._notes = total, done, done, ""
        self._start = time.monotonic()
        self._stop = threading.Event()
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._lines: threading.Thread | None = None

    def __enter__(self) -> LabelProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn(self._title),
                BarColumn(),
                TextColumn("{task.completed:,}/{task.total:,} images"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[notes]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="", notes="")
            self._bar.start()
        else:
            self._lines = threading.Thread(target=self._print_lines, name="progress", daemon=True)
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.stop()
        if self._lines is not None:
            self._lines.join()

    def update(self, done: int, notes: str) -> None:
        """Show that `done` images have a row. `notes` adds what the user should know, such as failures and retries."""
        self._done, self._notes = done, notes
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{self._rate():.1f} images/s", notes=notes)

    def add_total(self, images: int) -> None:
        """Note that there are more images than was known at the start."""
        self._total += images
        if images and self._bar is not None:
            self._bar.update(self._task, total=self._total)

    def _rate(self) -> float:
        return (self._done - self._already) / max(time.monotonic() - self._start, 1e-9)

    def _print_lines(self) -> None:
        while not self._stop.wait(LINE_SECONDS):
            self._print_line()
        self._print_line()

    def _print_line(self) -> None:
        rate = self._rate()
        notes = f", {self._notes}" if self._notes else ""
        fields = {"done": self._done, "total": self._total, "images_per_second": round(rate, 3), "notes": self._notes}
        log.info(
            "%s of %s images, %.1f images/s%s",
            f"{self._done:,}",
            f"{self._total:,}",
            rate,
            notes,
            extra={"fields": fields},
        )
