"""The switches of libraries that report their use; tests/end_to_end/test_no_telemetry.py watches whole runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from jobs.runtime.telemetry import HUB_SWITCHES, RAY_USAGE, switch_off_telemetry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (RAY_USAGE, *HUB_SWITCHES):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone afterwards
        monkeypatch.delenv(name)


def test_reports_are_off():
    switch_off_telemetry()
    assert os.environ[RAY_USAGE] == "0"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("name", HUB_SWITCHES)
def test_what_the_user_asks_for_stays(monkeypatch, name):
    monkeypatch.setenv(RAY_USAGE, "1")
    monkeypatch.setenv(name, "0")
    switch_off_telemetry()
    assert os.environ[RAY_USAGE] == "1"
    assert {switch: os.environ[switch] for switch in HUB_SWITCHES if switch in os.environ} == {name: "0"}


def test_openvino_and_nncf_are_imported_in_one_place():
    """Both report their import; `import_silently` keeps them from it. The one line is for type checkers only."""
    found = [
        (path.name, line.strip())
        for room in ("yolact", "jobs", "benchmarks")
        for path in sorted((ROOT / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.match(r"\s*(import|from) (openvino|nncf)\b", line)
    ]
    assert found == [("openvino_engine.py", "import openvino")]
