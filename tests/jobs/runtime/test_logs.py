"""The log: JSON lines that a collector can parse whatever a file is called, and quiet for everybody else's loggers."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from jobs.runtime.logs import configure_logging, in_worker


@pytest.fixture(autouse=True)
def restored():
    log = logging.getLogger("jobs")
    handlers, level = log.handlers, log.level
    yield
    configure_logging("text")
    log.handlers = handlers
    log.setLevel(level)


def test_json_lines_carry_the_run_and_their_fields(capsys):
    configure_logging("json")
    configure_logging("json", "1a2b3c")
    log = logging.getLogger("jobs.somewhere")
    log.info("%d of %d\nimages", 3, 4, extra={"fields": {"done": 3, "total": 4}})
    logging.getLogger("botocore").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    values = json.loads(line)
    assert values.pop("time").endswith("Z")
    assert values == {"level": "info", "run": "1a2b3c", "message": "3 of 4\nimages", "done": 3, "total": 4}


def test_text_lines_are_said_once(capsys):
    configure_logging("text")
    configure_logging("text", "1a2b3c")
    logging.getLogger("jobs.somewhere").warning("careful")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" careful")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_workers_log_into_rays_files_with_the_runs_id(local_ray, log_format):
    import ray
    from ray._private.worker import _global_node

    def count_something(number: int) -> None:  # local, so that it travels to the worker by value
        log = logging.getLogger("jobs.somewhere")
        log.info("counted %d", number, extra={"fields": {"counted": number}})
        log.warning("a warning about %d", number)

    run = f"run-{log_format}"
    configure_logging(log_format, run)
    ray.get(ray.remote(in_worker(count_something)).remote(7))
    lines: list[str] = []
    deadline = time.monotonic() + 20
    while not lines and time.monotonic() < deadline:
        files = Path(_global_node.get_logs_dir_path()).glob("worker-*.err")
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines() if run in line]
        time.sleep(0.1)
    if log_format == "text":  # quiet: warnings alone
        (warning,) = lines
        assert warning.endswith(f"{run} a warning about 7")
    else:
        told, warning = map(json.loads, lines)
        assert (told["run"], told["message"], told["counted"]) == (run, "counted 7", 7)
        assert warning["level"] == "warning"
