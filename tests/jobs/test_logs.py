"""The log: JSON lines that a collector can parse whatever a file is called, and quiet for everybody else's loggers."""

from __future__ import annotations

import json
import logging

import pytest

from jobs.logs import configure_logging


@pytest.fixture(autouse=True)
def restored():
    log = logging.getLogger("jobs")
    handlers, level = log.handlers, log.level
    yield
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
