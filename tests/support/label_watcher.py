"""A reader of `labels/` who looks at it all the while, and complains of anything but whole parts and single ids."""

from __future__ import annotations

import io
import threading
import time
from types import TracebackType

import pyarrow.parquet as pq
from support.s3_server import S3Server

POLL_SECONDS = 0.5


class LabelReader:
    """Reads OUTPUT on `s3` in a thread of its own while in its `with` block.

    `parts` are the ids that each published file must hold, by its name. `complaints` are what was wrong.
    """

    def __init__(self, s3: S3Server, output: str, parts: dict[str, list[str]]) -> None:
        self._s3, self._output, self._parts = s3, output.removeprefix("s3://"), parts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reader", daemon=True)
        self.complaints: list[str] = []
        self.looks = 0
        #: when each object of the run's progress was first seen, by its path
        self.seen: dict[str, float] = {}

    def __enter__(self) -> LabelReader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def progress_after(self, moment: float) -> float | None:
        """Seconds from `moment` (monotonic) until something new stood in OUTPUT; None if nothing came."""
        later = [seen for seen in self.seen.values() if seen > moment]
        return min(later) - moment if later else None

    def _watch(self) -> None:
        filesystem = self._s3.filesystem()
        while not self._stop.wait(POLL_SECONDS):
            try:
                found = filesystem.find(self._output)
            except Exception:  # the store is down; this reader comes again
                continue
            now = time.monotonic()
            for path in found:
                if not path.endswith(("lease.json", "run.json")):
                    self.seen.setdefault(path, now)
            self._look(filesystem, [path for path in found if path.startswith(f"{self._output}/labels/")])

    def _look(self, filesystem, files: list[str]) -> None:
        ids: list[str] = []
        for path in files:
            try:
                data = filesystem.cat_file(path)
            except Exception:
                return
            try:
                rows = pq.read_table(io.BytesIO(data))["image_id"].to_pylist()
            except Exception as error:
                self.complaints.append(f"{path} is no whole file: {error}")
                return
            if rows != self._parts.get(path.rpartition("/")[2]):
                self.complaints.append(f"{path} holds {len(rows)} rows that are not its part's")
            ids += rows
        self.looks += 1
        if len(ids) != len(set(ids)):
            self.complaints.append(f"{len(ids) - len(set(ids))} ids stand twice")
