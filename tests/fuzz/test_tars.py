"""Damaged tar shards: indexing and fetching give rows, each with its bytes or a problem, and nothing else.

YOLACT_FUZZ_TARS sets the number of damaged copies, YOLACT_FUZZ_SEED where the numbers begin.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.damage import fail_with_current, run_child

# on a busy machine a test may take many times as long as alone; the limit is there to end a hang
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(3600)]

CHILD = Path(__file__).with_name("tar_child.py")
COPIES = int(os.environ.get("YOLACT_FUZZ_TARS", "20000"))
FIRST = int(os.environ.get("YOLACT_FUZZ_SEED", "0"))


def test_no_damaged_tar_gives_anything_but_rows(tmp_path):
    done = run_child(CHILD, tmp_path, FIRST, COPIES)
    print(done.stdout)
    fail_with_current(done, tmp_path)
