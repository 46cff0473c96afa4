"""Damaged image files: decoding gives an image or an `ImageError`, and never ends its process by a signal.

YOLACT_FUZZ_IMAGES sets the number of damaged copies of each kind, YOLACT_FUZZ_SEED where the numbers begin.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from support.damage import fail_with_current, run_child

# on a busy machine a test may take many times as long as alone; the limit is there to end a hang
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(3600)]

CHILD = Path(__file__).with_name("image_child.py")
COPIES = int(os.environ.get("YOLACT_FUZZ_IMAGES", "20000"))
FIRST = int(os.environ.get("YOLACT_FUZZ_SEED", "0"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "HEIC"])
def test_no_damaged_image_ends_its_process_or_raises_anything_but_image_errors(kind, tmp_path):
    if kind == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("the extra `heif` is not installed")
    done = run_child(CHILD, tmp_path, kind, COPIES, FIRST)
    print(kind, done.stdout)
    fail_with_current(done, tmp_path)
