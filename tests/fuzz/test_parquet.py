"""Damaged Parquet files: indexing and fetching give rows, each with its bytes or a problem, and nothing else.

A file may end the process that reads it, by pyarrow's own hand. Then the lake's child is given the file, and its parent
must go on with one row that says so.

YOLACT_FUZZ_PARQUET sets the number of damaged copies, YOLACT_FUZZ_SEED where the numbers begin.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.damage import fail_with_current, run_child

from jobs.lake import ParquetColumns, Problem, Source, fetch_rows, index_in_child

# on a busy machine a test may take many times as long as alone; the limit is there to end a hang
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(3600)]

CHILD = Path(__file__).with_name("parquet_child.py")
COPIES = int(os.environ.get("YOLACT_FUZZ_PARQUET", "10000"))
FIRST = int(os.environ.get("YOLACT_FUZZ_SEED", "0"))


def test_no_damaged_file_gives_anything_but_rows(tmp_path):
    """Copies that end the process are counted; the next ones are read by a new one."""
    start, deaths = 0, 0
    while start < COPIES:
        done = run_child(CHILD, tmp_path, FIRST, start, COPIES)
        print(done.stdout)
        if done.returncode >= 0:
            fail_with_current(done, tmp_path)
            break
        deaths += 1
        number = int((tmp_path / "number").read_text())
        print(f"copy {number} ended its process by signal {-done.returncode}")
        survive(tmp_path / f"deadly-{number}.parquet", (tmp_path / "current").read_bytes())
        start = number + 1
    print(f"{deaths} of {COPIES} copies ended the process that read them")


def survive(path: Path, data: bytes) -> None:
    """Index and fetch as a run does after a death. Fails unless every row has its bytes or a problem."""
    path.write_bytes(data)
    table = index_in_child(Source(str(path), len(data), "", "parquet"), ParquetColumns())
    rows = table.slice(0, 64).to_pylist()
    assert rows
    fetched = fetch_rows(rows, max_bytes=1 << 20, in_child=True)
    assert all(isinstance(found, bytes | Problem) for found in fetched)
