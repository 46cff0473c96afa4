"""Repairs manifests of earlier versions of this program, which could hold a row twice.

`--relabel-changed` on loose images could leave the old row of an image beside its new one, and two inputs could give
the same id to two images. A manifest whose generations were never checked is checked here. Wrong rows are dropped:
their parts are replaced by new parts, which are labelled again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.label.fence import Fence
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.ids import Place, find_doubled
from jobs.label.manifest.parts import Generation, Part, Sizes
from jobs.label.manifest.relabel import PartWriter, complete_replaced
from jobs.table.output import Output

log = logging.getLogger(__name__)


def mend(output: Output, generations: Sequence[Generation], sizes: Sizes, fence: Fence) -> list[Generation]:
    """Check the ids of a manifest and make each id unique. Returns the generations after that.

    Every generation is marked as checked. Raises what `jobs.storage` raises, and `JobError` where another driver took
    over.
    """
    parts = manifest.all_parts(generations)
    doubled = find_doubled(output, {part.number: part.images for part in parts}, fence)
    wrong = _wrong_rows(output, parts, doubled, manifest.source_versions(generations)) if doubled else {}
    if wrong:
        log.warning("%d ids stand twice in the manifest; the parts they are in are labelled again", len(doubled))
    writer = PartWriter(output, sizes, manifest.next_part_number(generations), fence)

    after = [_mended(generation, writer, wrong) for generation in generations]
    complete_replaced(output, generations, after, writer)
    return manifest.remove_strays(output, fence)


def _mended(generation: Generation, writer: PartWriter, wrong: Mapping[int, set[int]]) -> Generation:
    parts: list[Part] = []
    for part in generation.parts:
        parts += writer.rewrite(part, generation, _without(wrong[part.number])) if part.number in wrong else [part]
    if generation.ids_checked and tuple(parts) == generation.parts:
        return generation
    return dataclasses.replace(generation, parts=tuple(parts), ids_checked=True)


def _without(rows: set[int]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        keep = np.ones(table.num_rows, bool)
        keep[sorted(rows)] = False
        return table.filter(pa.array(keep))

    return change


def _wrong_rows(
    output: Output, parts: Sequence[Part], doubled: Sequence[Sequence[Place]], sources: Mapping[str, tuple[int, str]]
) -> dict[int, set[int]]:
    """The rows to drop, by part. A part with an empty set keeps all rows, but some of its ids must change."""
    wrong: dict[int, set[int]] = defaultdict(set)
    stale: dict[str, list[tuple[int, int]]] = defaultdict(list)
    current: set[str] = set()
    seen: set[tuple[str, str, int]] = set()
    suspects = {(place.part, place.row) for places in doubled for place in places}
    for part in parts:
        for row, (image_id, uri, offset, size, etag) in enumerate(zip(*_columns(output, part), strict=True)):
            if sources.get(uri) != (size, etag):
                stale[uri].append((part.number, row))
                continue
            current.add(uri)
            if (part.number, row) in suspects:
                # a second row for the same bytes of the same object
                if (image_id, uri, offset) in seen:
                    wrong[part.number].add(row)
                seen.add((image_id, uri, offset))
    # rows of the older content of an object that has rows of its present content too
    for uri in stale.keys() & current:
        for number, row in stale[uri]:
            wrong[number].add(row)
    for places in doubled:
        left = [place for place in places if place.row not in wrong.get(place.part, ())]
        for place in left[1:]:
            # other bytes under the same id: the row stays, and it gets another id when its part is rewritten
            wrong[place.part] |= set()
    return wrong


def _columns(output: Output, part: Part) -> list[list[Any]]:
    names = ["image_id", "uri", "offset", "size", "etag"]
    with storage.open_file(output.manifest_part(part.number)) as file:
        table = pq.ParquetFile(file).read(columns=names)
    return [table[name].to_pylist() for name in names]
