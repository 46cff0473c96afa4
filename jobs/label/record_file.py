"""run.json as one driver writes it: replaced only as this driver last saw it."""

from __future__ import annotations

from jobs import storage
from jobs.label.fence import Fence, written_meanwhile
from jobs.table.output import Output


class RecordWriter:
    """Writes run.json for one driver."""

    def __init__(self, output: Output, fence: Fence) -> None:
        self._output, self._fence = output, fence
        found = storage.read_versioned(output.run_record)
        self._last = None if found is None else found[0]

    def write(self, data: bytes) -> None:
        """Replace the content of run.json. Raises `JobError` where another driver has written it meanwhile."""
        found = storage.read_versioned(self._output.run_record)
        there, version = (None, None) if found is None else found
        if there not in (self._last, data):
            self._fence.check()
            raise written_meanwhile(self._output.run_record)
        self._fence.replace(self._output.run_record, data, version)
        self._last = data
