"""An OUTPUT in the middle of its work, of made-up ids, in the format that the label job has on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage, tables
from jobs.labelling import manifest
from jobs.labelling.indexing import Sizes, source_table
from jobs.labelling.manifest import Generation, Part
from jobs.labelling.output import Output
from jobs.labelling.publish import COUNTS_KEY, count_rows
from jobs.lake import INDEX, Source, expand_inputs
from jobs.schema import LABELS, STATUS_OK

#: bytes of every shard and of every made-up image in it; no picture, so that each becomes a row of its own cheaply
_BYTES = 512
_WRITERS = 16


def write_shards(lake: str, shards: int) -> list[Source]:
    """`shards` small objects with names of tar shards, as the job lists them."""
    _side_by_side(lambda number: storage.put_atomic(f"{lake}/shard-{number:06d}.tar", bytes(_BYTES)), range(shards))
    return expand_inputs([lake])


def write_manifest(output: Output, sources: Sequence[Source], rows: int, sizes: Sizes) -> Generation:
    """A complete generation of `rows` images, dealt out to `sources` in order."""
    cut = manifest.cut_parts(
        _index(sources, rows),
        first_part=0,
        images_per_part=sizes.images_per_part,
        images_per_unit=sizes.images_per_unit or 64,
        bytes_per_unit=sizes.bytes_per_unit,
    )
    parts = []
    for part, table in cut:
        manifest.write_part(output, part, table)
        parts.append(part)
    known = source_table(sources)
    manifest.complete_generation(output, 0, known, parts)
    return Generation(0, known, tuple(parts))


def _index(sources: Sequence[Source], rows: int) -> Iterator[pa.Table]:
    """What indexing would give for each shard; every image is said to be the shard's only bytes."""
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
    """`part` in `labels/`, without instances, its books in the footer."""
    rows = _rows(tables.read(output.manifest_part(part.number)))
    rows = rows.replace_schema_metadata({COUNTS_KEY: json.dumps(asdict(count_rows(rows)))})
    storage.put_atomic(output.labels_part(part.number), tables.to_bytes(rows))


def write_staged(output: Output, part: Part, units: int) -> None:
    """The first `units` of `part` as committed, without instances."""
    table = tables.read(output.manifest_part(part.number))

    def commit(unit: int) -> None:
        rows = _rows(manifest.rows_of_unit(table, unit))
        storage.put_atomic(output.staged_unit(unit), tables.to_bytes(rows))

    _side_by_side(commit, part.unit_numbers()[:units])


def _side_by_side(put: Callable[[int], None], numbers: range) -> None:
    """Every put waits for the disk or the store, so several are under way."""
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
