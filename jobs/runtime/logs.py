"""The log of a job, on stderr of the driver and of its Ray workers: lines for people, or JSON lines for a collector.

As text, the driver reports progress and workers only log warnings. As JSON, workers also log a line for each unit,
piece or start. Ray keeps the stderr of each worker in a file. Every line has the run's id, except text lines of the
driver.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

LogFormat = Literal["text", "json"]


def run_id(*parts: str) -> str:
    """The id of a run in log lines and metrics. The same `parts`, such as the output, give the same id on a resume."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `run`, `message`, and the entries of `extra={"fields": {…}}`."""

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


@dataclass(frozen=True)
class _Settings:
    log_format: LogFormat = "text"
    run: str = ""


_settings = _Settings()


def configure_logging(log_format: LogFormat, run: str = "") -> None:
    """Send the log of `jobs` to stderr from INFO up; other libraries log from WARNING up, as Python does by default.

    A command calls this a second time when it knows the run's id. The last call counts. `in_worker` gives its settings
    to the workers.
    """
    global _settings
    _settings = _Settings(log_format, run)
    _send_to_stderr(_text_or_json(_settings, "%(asctime)s %(message)s"), logging.INFO)


def in_worker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function for a Ray worker: before it runs, its process is set to log as this driver does."""
    settings = _settings

    def configure() -> None:
        level = logging.INFO if settings.log_format == "json" else logging.WARNING
        _send_to_stderr(_text_or_json(settings, f"%(asctime)s {settings.run} %(message)s"), level)

    @functools.wraps(function)
    def logging_function(*args: Any, **kwargs: Any) -> Any:
        configure()
        return function(*args, **kwargs)

    @functools.wraps(function)
    def logging_generator(*args: Any, **kwargs: Any) -> Any:
        configure()
        yield from function(*args, **kwargs)

    # Ray streams results only from generator functions
    return logging_generator if inspect.isgeneratorfunction(function) else logging_function


def _text_or_json(settings: _Settings, text: str) -> logging.Formatter:
    return JsonLines(settings.run) if settings.log_format == "json" else logging.Formatter(text, "%H:%M:%S")


def _send_to_stderr(formatter: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.set_name("yolact")
    log = logging.getLogger("jobs")
    log.handlers = [other for other in log.handlers if other.get_name() != handler.get_name()]
    log.addHandler(handler)
    log.setLevel(level)
