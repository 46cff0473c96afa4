"""What README and docs say is true: the tree is that of the files, and the commands of the README work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tree import draw_tree, tree_in_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_tree_in_the_docs_is_drawn_from_the_files():
    assert tree_in_page() == draw_tree(), "run `make tree`"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_in_the_readme_works_word_for_word(tmp_path):
    """All of its commands, in an empty folder; instead of `make demo` its command, because `.venv` exists already."""
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
