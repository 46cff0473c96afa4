"""What the README says is so: its tree names every file, and its walk can be walked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_tree_in_the_readme_names_every_file():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    words = {line.split()[0] for line in tree.splitlines() if line.strip()}
    files = [path for package in ("yolact", "jobs") for path in (ROOT / package).rglob("*.py")]
    files += [path for path in (ROOT / "cluster").rglob("*") if path.is_file()]
    missing = {path.name for path in files if path.name != "__init__.py"} - words
    assert not missing
    stale = {word for word in words if word.endswith(".py")} - {path.name for path in files}
    assert not stale


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_in_the_readme_works_word_for_word(tmp_path):
    """All of its commands, in an empty folder; what `make demo` adds to its own command is the set-up of `.venv`."""
    walk = (ROOT / "README.md").read_text().split("## From nothing to a model of your own")[1]
    script = walk.split("```sh")[1].split("```")[0]
    for there, here in (("make demo", "yolact demo --output demo"), (". .venv/bin/activate", "")):
        assert script.count(there) == 1
        script = script.replace(there, here)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "demo/report.html").stat().st_size > 100_000
    exported = json.loads((tmp_path / "demo/coco/labels.json").read_text())
    assert len(exported["images"]) == 48
    assert f"48 {len(exported['annotations'])}" in done.stdout
    assert "step 20/20" in done.stdout
    assert json.loads((tmp_path / "demo/again/_SUCCESS").read_text())["images"] == 48
