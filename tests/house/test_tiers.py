"""Tests are marked by what they need, and a test without marks cannot start a process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiers import TIERS, StartedAProcess, marks_for, no_processes

MODULE = """
import subprocess as sp
from support.label_watcher import LabelWatcher

def helper():
    return run_it()

def run_it():
    return sp.run(["true"])

def test_far():
    helper()

def test_pure():
    assert 1 + 1 == 2

def test_watcher():
    LabelWatcher()

def server():
    run_it()
"""


@pytest.fixture
def module(tmp_path) -> Path:
    path = tmp_path / "test_module.py"
    path.write_text(MODULE)
    return path


def test_marks_follow_from_fixtures(module):
    assert marks_for("test_pure", [], module) == set()
    assert marks_for("test_pure", ["tmp_path", "local_ray", "s3"], module) == {"ray", "store"}
    assert marks_for("test_pure", ["browser"], module) == {"browser"}


def test_marks_follow_from_what_a_test_calls(module):
    assert marks_for("test_far", [], module) == {"process"}
    assert marks_for("test_watcher", [], module) == {"process"}
    assert marks_for("test_pure", ["server"], module) == {"process"}


def test_pytest_sets_the_marks(request):
    assert not any(request.node.get_closest_marker(tier) for tier in TIERS)
    others = {item.originalname: item for item in request.session.items if item.path == Path(__file__)}
    starter = others.get("test_a_process_is_an_error_without_the_mark")  # absent where pytest ran one test alone
    assert starter is None or starter.get_closest_marker("process")


def test_a_process_is_an_error_without_the_mark():
    with no_processes("test_x"), pytest.raises(StartedAProcess, match="test_x starts a process"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with no_processes("test_x"), pytest.raises(StartedAProcess, match="test_x starts a process"):
        multiprocessing.get_context("spawn").Process(target=print).start()
    subprocess.run([sys.executable, "-c", ""], check=True)
