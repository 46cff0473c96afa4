"""The memory of an export does not grow with the table: with ten times the rows the peak is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.tables import random_rows

from jobs.table.schema import LABELS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS_AT_ONCE = 2000

#: in a process of its own, which tells its own peak, in kB: getrusage would tell that of pytest, which forked it
EXPORT = """
import json, re, sys
from jobs.export import ExportConfig, run
options = json.loads(sys.argv[1])
assert run(ExportConfig(**options)) == 0
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def write_table(folder: Path, rows: int) -> str:
    """A run's OUTPUT of so many rows in one file; the same images over and over under other names."""
    (folder / "labels").mkdir(parents=True)
    drawn = pa.Table.from_pylist(random_rows(ROWS_AT_ONCE), schema=LABELS)
    with pq.ParquetWriter(folder / "labels" / "part-000000.parquet", LABELS) as writer:
        for number in range(rows // ROWS_AT_ONCE):
            ids = pc.binary_join_element_wise(f"s3://lake/{number:04d}/", drawn["image_id"], "")
            writer.write_table(drawn.set_column(0, LABELS.field("image_id"), ids.cast(pa.string())))
    return str(folder)


def peak_megabytes(labels: str, target: Path, **options: object) -> float:
    arguments = json.dumps({"labels": labels, "output": str(target), **options})
    done = subprocess.run([sys.executable, "-c", EXPORT, arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1]) / 1024


def test_a_large_table_is_exported_with_the_memory_of_a_small_one(tmp_path):
    small, large = (write_table(tmp_path / str(rows), rows) for rows in (20_000, 240_000))
    alone = {"rows_per_task": 10**9}
    of_small = peak_megabytes(small, tmp_path / "small.json", **alone)
    of_large = peak_megabytes(large, tmp_path / "large.json", **alone)
    written = (tmp_path / "large.json").stat().st_size / 1e6
    on_ray = peak_megabytes(large, tmp_path / "ray.json", rows_per_task=20_000, address="local")
    print(f"peak {of_small:.0f} MB for 20,000 rows, {of_large:.0f} MB for 240,000, document of {written:.0f} MB;")
    print(f"the driver's peak with Ray {on_ray:.0f} MB")
    # the document alone would be many times the room that is given here
    assert written > 150
    assert of_large < of_small + 40
    assert on_ray < of_small + 150  # Ray itself
    assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "large.json").read_bytes()
