"""The Makefile explains itself, and no command of the tests changes a tracked file."""

from __future__ import annotations

import re
from pathlib import Path

from support.fault_report import PAGE

ROOT = Path(__file__).resolve().parents[2]
TARGETS = re.findall(r"^([a-z-]+):(.*)$", (ROOT / "Makefile").read_text(), re.M)


def test_every_target_stands_in_make_help():
    wanted = {"demo", "quick", "test", "test-slow", "test-faults", "test-hosts", "faults-page"}
    assert wanted <= {name for name, _ in TARGETS}
    assert [name for name, rest in TARGETS if "## " not in rest] == []


def test_every_target_is_phony():
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(phony.split()) == sorted(name for name, _ in TARGETS)


def test_the_page_of_the_fault_tests_is_written_where_git_does_not_look():
    assert PAGE.relative_to(ROOT).parts[0] == "build"
    assert "/build/" in (ROOT / ".gitignore").read_text().splitlines()
