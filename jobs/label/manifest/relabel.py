"""What was replaced in the lake, indexed and labelled again.

A part that holds rows of a replaced object gives way to a new part under a new number, in which that object's rows are
the new ones. The switch is one put, of the generation that names its parts; labels and manifest files of parts that
no generation names are stray, and are removed before anything is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.indexing import Sizes, list_groups
from jobs.label.manifest.parts import Generation, Part, next_part_number
from jobs.lake import ParquetColumns, Source
from jobs.table import parquet as tables
from jobs.table.output import Output


def remove_strays(output: Output, generations: Sequence[Generation]) -> None:
    """Delete what an indexing or a relabelling that was cut off left in `labels/` and `manifest/`."""
    known = {part.number for generation in generations for part in generation.parts}
    strays = [output.labels_part(number) for number in output.published_parts() - known]
    strays += [output.manifest_part(number) for number in output.indexed_parts() - known]
    storage.delete_objects(strays)


def replace_changed(
    output: Output,
    generations: Sequence[Generation],
    changed: Sequence[Source],
    *,
    sizes: Sizes,
    columns: ParquetColumns,
) -> list[Generation]:
    """Index `changed` anew; returns the generations with the parts that take the place of those they were in."""
    storage.delete_objects([output.success])
    fresh = dict(zip((s.uri for s in changed), list_groups(output, changed, columns), strict=False))
    fresh_sources = {source.uri: source for source in changed}
    free = next_part_number(generations)
    replaced = []
    for generation in generations:
        uris = set(generation.sources["uri"].to_pylist()) & fresh.keys()
        if uris:
            rows = {uri: fresh[uri] for uri in uris}
            parts, free = _replace_parts(output, generation.parts, rows, free, sizes)
            sources = _with_fresh(generation.sources, fresh_sources)
            manifest.complete_generation(output, generation.number, sources, parts)
            generation = Generation(generation.number, sources, tuple(parts))
        replaced.append(generation)
    remove_strays(output, replaced)
    return replaced


def _replace_parts(
    output: Output, parts: Sequence[Part], fresh: dict[str, pa.Table], free: int, sizes: Sizes
) -> tuple[list[Part], int]:
    result: list[Part] = []
    for part in parts:
        table = tables.read(output.manifest_part(part.number))
        if not pc.any(pc.is_in(table["uri"], pa.array(list(fresh), pa.string()))).as_py():
            result.append(part)
            continue
        groups = _groups_with_fresh(table.drop_columns(["unit", "part"]), fresh)
        # one part for one: it may hold a few images more or fewer than a fresh one would
        cut = manifest.cut_parts(
            groups,
            first_part=free,
            images_per_part=max(1, sum(group.num_rows for group in groups)),
            images_per_unit=sizes.images_per_unit or 64,
            bytes_per_unit=sizes.bytes_per_unit,
        )
        for new_part, rows in cut:
            manifest.write_part(output, new_part, rows)
            result.append(new_part)
            free += 1
    return result, free


def _groups_with_fresh(table: pa.Table, fresh: dict[str, pa.Table]) -> list[pa.Table]:
    """The rows of a part by source; a changed source's are the fresh ones, where it is met first."""
    groups = []
    row = 0
    for uri, run in groupby(table["uri"].to_pylist()):
        length = sum(1 for _ in run)
        if uri not in fresh:
            groups.append(table.slice(row, length))
        else:
            groups.append(fresh[uri])
            # of a source that spans two parts, the second has nothing left
            fresh[uri] = fresh[uri].slice(0, 0)
        row += length
    return groups


def _with_fresh(sources: pa.Table, fresh: dict[str, Source]) -> pa.Table:
    rows = sources.replace_schema_metadata(None).to_pylist()
    return pa.Table.from_pylist(
        [fresh[row["uri"]]._asdict() if row["uri"] in fresh else row for row in rows], schema=manifest.SOURCES
    )
