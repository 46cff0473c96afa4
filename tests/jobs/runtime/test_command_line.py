"""The command line: help, versions, errors in one line, and exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import COMMANDS, main
from jobs.table.schema import LABELS


def yolact(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, timeout=120)


def test_the_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_neither_torch_nor_ray(command):
    code = (
        "import sys, jobs.__main__ as m\n"
        f"try:\n    m.main([{command!r}, '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_the_version_is_that_of_the_package():
    done = yolact("--version")
    assert (done.returncode, done.stdout) == (0, f"yolact {importlib.metadata.version('yolact-ray')}\n")


def closed_early(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with a stdout that nobody reads: a pipe whose reader has ended, as `| head` soon has."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_into_a_reader_that_has_ended_says_nothing(command):
    done = closed_early(*command.split(), "--help")
    assert done.stderr == ""
    assert done.returncode == 141


def test_a_table_into_a_reader_that_has_ended_says_nothing(tmp_path):
    box = {"bbox": [1, 1, 4, 4], "area": 16, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **box}],
        "categories": [{"id": 1, "name": "nucleus"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    pq.write_table(pa.Table.from_pylist([], schema=LABELS), tmp_path / "labels.parquet")
    done = closed_early("evaluate", str(tmp_path / "labels.parquet"), "--ground-truth", str(tmp_path / "truth.json"))
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lable"], "unknown command 'lable'"),
        (["label", "lake"], "--output"),
        (["label", "lake", "--output", "out", "--nms", "soft"], "'soft'"),
        (["label", "lake", "--output", "out", "--batch-sise", "2"], "--batch-sise"),
        (["label", "lake", "--output", "out", "--score-threshold", "7"], "--score-threshold 7.0"),
        (["label", "lake", "--output", "out", "--num-actors", "many"], "--num-actors many"),
        (["label", "/no/such/lake", "--output", "/tmp/out", "--config", "yolact_base"], "/no/such/lake"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, message):
    done = yolact(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert done.stdout == ""
