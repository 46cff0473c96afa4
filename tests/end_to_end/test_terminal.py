"""What a user's terminal shows of a real command: its own lines, and none of Ray's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.lakes import draw_images, write_files
from support.training import draw_plates

#: a line of Ray's C++ core, such as "[2026-11-25 23:08:37,921 I 18245 18245] logging.cc:303: …", or of its Python log
LINE_OF_RAY = re.compile(r"^\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}[ \t]|\.cc:\d+:|\(\w+ pid=", re.MULTILINE)


def terminal_of(*arguments: object) -> str:
    """Everything that a command prints; the command must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments), "--address", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def label(folder: Path) -> str:
    write_files(str(folder / "images"), draw_images(3))
    return terminal_of("label", folder / "images", "--output", folder / "output", "--config", "nuclei")


def train(folder: Path) -> str:
    plates = draw_plates(folder / "plates")
    options = ["--max-steps", 1, "--batch-size", 2, "--window-size", 64, "--loader-processes", 0, "--config", "nuclei"]
    data = ["--annotations", plates["annotations"], "--images", plates["images"], "--init-weights", "random"]
    return terminal_of("train", *data, "--output", folder / "run", *options)


@pytest.mark.ray
@pytest.mark.process
@pytest.mark.parametrize("command", [label, pytest.param(train, marks=pytest.mark.slow)])
def test_the_terminal_shows_no_line_of_ray(command, tmp_path):
    printed = command(tmp_path)
    assert LINE_OF_RAY.search(printed) is None, printed


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-25 23:08:37,921 I 18245 18245] logging.cc:303: Set ray log level from environment variable",
        "2026-11-25 23:08:37,921\tINFO worker.py:1927 -- Started a local Ray instance.",
        "(RayTrainWorker pid=18245) a line of a worker",
    ],
)
def test_the_check_knows_the_lines_of_ray(line):
    assert LINE_OF_RAY.search(f"before\n{line}\nafter")
