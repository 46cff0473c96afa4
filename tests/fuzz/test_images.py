"""Damaged image files: decoding gives an image or an `ImageError`, and never ends its process by a signal.

YOLACT_FUZZ_IMAGES sets the number of damaged copies of each kind, YOLACT_FUZZ_SEED where the numbers begin.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.process]

CHILD = Path(__file__).with_name("image_child.py")
ROOT = CHILD.parents[2]
COPIES = int(os.environ.get("YOLACT_FUZZ_IMAGES", "20000"))
FIRST = int(os.environ.get("YOLACT_FUZZ_SEED", "0"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "HEIC"])
def test_no_damaged_image_ends_its_process_or_raises_anything_but_image_errors(kind, tmp_path):
    if kind == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("the extra `heif` is not installed")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(CHILD), str(tmp_path), kind, str(COPIES), str(FIRST)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(kind, done.stdout)
    if done.returncode != 0:
        data = base64.b64encode((tmp_path / "current").read_bytes()).decode()
        pytest.fail(f"exit code {done.returncode}\n{done.stderr[-3000:]}\nthe file, as base64: {data}")
