"""The wheel works outside of the checkout: installed into a new environment, it labels images and makes the report.

The new environment sees the installed packages of this one (torch and Ray are gigabytes) through a .pth file, but
neither the checkout nor the editable install, because Python does not follow .pth files of such a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support.training import draw_plates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command in `cwd`."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, because setuptools writes beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("yolact", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", source / "dist", cwd=source)
    [path] = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of a new environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    [packages] = (folder / "lib").glob("python*/site-packages")
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "seen.pth").write_text("\n".join(seen) + "\n")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return python


def test_the_packages_come_from_the_wheel(python, tmp_path):
    where = run(python, "-c", "import jobs, yolact; print(jobs.__file__, yolact.__file__)", cwd=tmp_path).split()
    assert all(Path(path).is_relative_to(python.parents[1]) for path in where)


def test_it_labels_three_images_with_the_shipped_model_and_reports_on_them(python, tmp_path):
    draw_plates(tmp_path / "lake", 3, height=128, width=128, density=60, mean_diameter=20)
    yolact = python.parent / "yolact"
    run(yolact, "label", "lake/images", "--output", "labels", "--config", "nuclei", "--address", "local", cwd=tmp_path)
    assert json.loads((tmp_path / "labels/_SUCCESS").read_text())["images"] == 3
    run(yolact, "report", "labels", "--output", "report.html", cwd=tmp_path)
    assert "<script" in (tmp_path / "report.html").read_text()
