"""Time and memory of a resume with many images done: millions of made-up ids, and a few new images.

Ray Data gets the ids as its checkpoint, in a hundred files; a real run has a file for each block, many more. The label
job gets a manifest of as many rows in tar shards, of which all parts but the last are published.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.against_ray_data.programs import RAY_DATA
from benchmarks.against_ray_data.scenarios import SCENARIOS
from benchmarks.against_ray_data.trial import Bench, Trial
from benchmarks.scale.manifest import start_and_stop, write_manifest, write_published, write_shards
from jobs.label.manifest.parts import Sizes
from jobs.table.output import Output

_FILES = 100
_IMAGES_PER_SHARD = 10_000


@dataclass(frozen=True)
class Resume:
    """One resume; memory in MB (10⁶ bytes)."""

    program: str
    ids: int
    seconds: float | None
    """from the start of the process to the first new rows; None where there were none in time"""
    driver_peak_mb: float
    all_peak_mb: float
    """resident memory of the driver, and memory that only its other processes use (USS)"""


def resume_ray_data(bench: Bench, ids: int) -> Resume:
    """Label a small lake with a checkpoint that names `ids` other images."""
    filesystem, output = bench.store.filesystem(), f"{bench.place.output}-ids"

    def write(number: int) -> None:
        file = io.BytesIO()
        first, end = ids * number // _FILES, ids * (number + 1) // _FILES
        paths = [f"bench-bucket/made-up/lake/image-{image:010d}.jpg" for image in range(first, end)]
        pq.write_table(pa.table({"path": paths}), file)
        filesystem.pipe_file(f"{output}/checkpoint/made-up-{number:03d}.parquet", file.getvalue())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(_FILES)))
    result = Trial(replace(bench, place=replace(bench.place, output=output)), RAY_DATA, SCENARIOS[0]).run()
    return Resume(RAY_DATA.name, ids, result.first_rows_seconds, result.driver_peak_mb, result.all_peak_mb)


def resume_yolact(folder: Path, ids: int, weights: Path, timeout_seconds: float) -> Resume:
    """Go on with a run of `ids` images of which all parts but the last are published."""
    lake, output = str(folder / "lake"), Output.at(str(folder / "out"))
    generation = write_manifest(output, write_shards(lake, -(-ids // _IMAGES_PER_SHARD)), ids, Sizes())
    for part in generation.parts[:-1]:
        write_published(output, part)
    start = start_and_stop(lake, output.uri, weights, timeout_seconds)
    return Resume("yolact label", ids, start.first_row_seconds, start.driver_peak_mb, start.all_peak_mb)
