"""Every file says first what it is: Python files by a docstring, others by a comment where their format has one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tree import first_sentence

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("yolact", "jobs", "benchmarks", "tests", "cluster")
#: formats that have comments; JSON has none, and Markdown opens with its title
KINDS = {".py", ".yaml", ".html", ".css", ".js", ".svg", ".txt", ""}
#: folders of files that nobody wrote by hand: bytecode, and a label table as `yolact label` left it
LEFT_OUT = {"__pycache__", "version_1"}
TOP = (
    ".ci/run",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CITATION.cff",
    "Makefile",
    "constraints.txt",
    "pyproject.toml",
)


def files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if not LEFT_OUT & {*path.parts}]
    return [ROOT / name for name in TOP] + [path for path in inside if path.is_file() and path.suffix in KINDS]


def opening(path: Path) -> str:
    lines = path.read_text().splitlines(keepends=True)
    if path.suffix == ".py" or not lines[0].startswith("#!"):
        return first_sentence(path)
    return lines[1].lstrip("# ").rstrip()


def test_every_file_says_first_what_it_is():
    # a sentence has at least three words; a title, a version or a line of code has fewer or no letter
    silent = [str(path.relative_to(ROOT)) for path in files() if len(opening(path).split()) < 3]
    assert silent == [], "begin the file with a sentence that says what it is"


@pytest.mark.parametrize(
    "name", ["yolact/config.py", "cluster/aws.yaml", "jobs/report/templates/report.css", "Makefile"]
)
def test_the_check_reads_kinds_of_files(name):
    assert len(opening(ROOT / name).split()) >= 3


def test_the_check_sees_a_silent_file(tmp_path):
    path = tmp_path / "silent.py"
    path.write_text("import os\n")
    assert opening(path) == ""
