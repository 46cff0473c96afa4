"""Writes a lake, a manifest and labels with invented ids, in the job's own format, without any image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.label.fence import NoFence
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.indexing import source_table
from jobs.label.manifest.parts import Generation, Part, Sizes
from jobs.label.pipeline.publish import COUNTS_KEY, count_rows
from jobs.lake import INDEX, Source, expand_inputs
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.schema import LABELS, STATUS_OK

#: bytes of every shard and of every invented image; they cannot be decoded, so that each row costs little
_BYTES = 512
_WRITERS = 16


def write_shards(lake: str, shards: int) -> Sequence[Source]:
    """`shards` small objects with names of tar shards, as the job lists them."""
    _side_by_side(lambda number: storage.put_atomic(f"{lake}/shard-{number:06d}.tar", bytes(_BYTES)), range(shards))
    return expand_inputs([lake])


def write_manifest(output: Output, sources: Sequence[Source], rows: int, sizes: Sizes) -> Generation:
    """Write a complete generation of `rows` images, which are divided among `sources` in order."""
    cut = manifest.cut_parts(
        _index(sources, rows),
        first_part=0,
        images_per_part=sizes.images_per_part,
        images_per_unit=sizes.images_per_unit or 64,
        bytes_per_unit=sizes.bytes_per_unit,
    )
    parts = []
    for part, table in cut:
        manifest.write_part(output, part, table, NoFence())
        parts.append(part)
    generation = Generation(0, source_table(sources), tuple(parts))
    manifest.complete_generation(output, generation, (), NoFence())
    return generation


def _index(sources: Sequence[Source], rows: int) -> Iterator[pa.Table]:
    """The index of each shard. All images of a shard have the address of the same bytes."""
    starts = np.linspace(0, rows, len(sources) + 1).astype(np.int64)
    for source, first, end in zip(sources, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        count = end - first
        numbers = pc.utf8_lpad(pc.cast(pa.array(np.arange(first, end)), pa.string()), 9, "0")
        yield pa.table(
            [
                pc.binary_join_element_wise(f"{source.uri}#image-", numbers, ".jpg", ""),
                pa.repeat(source.uri, count),
                pa.repeat(0, count),
                pa.repeat(_BYTES, count),
                pa.repeat(source.size, count),
                pa.repeat(source.etag, count),
                pa.nulls(count, pa.string()),
            ],
            schema=INDEX,
        )


def write_published(output: Output, part: Part) -> None:
    """Publish `part` in `labels/`, without instances, with its counts in the footer."""
    rows = _rows(tables.read(output.manifest_part(part.number)))
    rows = rows.replace_schema_metadata({COUNTS_KEY: json.dumps(asdict(count_rows(rows)))})
    storage.put_atomic(output.labels_part(part.number), tables.to_bytes(rows))


def write_staged(output: Output, part: Part, units: int) -> None:
    """Commit the first `units` of `part`, without instances."""
    table = tables.read(output.manifest_part(part.number))

    def commit(unit: int) -> None:
        rows = _rows(manifest.rows_of_unit(table, unit))
        storage.put_atomic(output.staged_unit(unit), tables.to_bytes(rows))

    _side_by_side(commit, part.unit_numbers()[:units])


def _side_by_side(put: Callable[[int], None], numbers: range) -> None:
    """Call `put` for many numbers at once, since every put waits for the disk or the store."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(put, numbers))


def _rows(manifest_rows: pa.Table) -> pa.Table:
    count = manifest_rows.num_rows
    return pa.table(
        [
            manifest_rows["image_id"],
            manifest_rows["uri"],
            pa.array([STATUS_OK] * count, pa.string()),
            pa.nulls(count, pa.string()),
            pa.array(np.full(count, 64, np.int32)),
            pa.array(np.full(count, 64, np.int32)),
            pa.array([[]] * count, LABELS.field("instances").type),
        ],
        schema=LABELS,
    )
