"""The job's own log on stderr: lines for people, or JSON lines that carry the run's id."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

LogFormat = Literal["text", "json"]


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `run`, `message`, and what `extra={"fields": {…}}` adds."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "run": self.run,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(log_format: LogFormat, run: str = "") -> None:
    """Send the log of `jobs` to stderr and nothing else of anybody's below a warning.

    Called again once the run's id is known; the last call counts.
    """
    formatter: logging.Formatter = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    if log_format == "json":
        formatter = JsonLines(run)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.set_name("yolact")
    log = logging.getLogger("jobs")
    log.handlers = [other for other in log.handlers if other.get_name() != handler.get_name()]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
