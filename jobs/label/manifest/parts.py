"""The manifest: every image of the lake once, cut into parts and units.

A *part* is one Parquet file here and one in `labels/`. A *unit* is a run of neighbouring images within a part and is
the atom of work. The lake is taken in *generations*: one is complete when its object under `_state/sources/` stands,
and then its sources (uri, size, etag) are known and its parts final. Manifest files beyond the last complete
generation are left-overs of an indexing that was cut off; the next one overwrites them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.lake import INDEX
from jobs.table import parquet as tables
from jobs.table.output import UNITS_PER_PART, Output

MANIFEST = pa.schema([*INDEX, ("unit", pa.int64()), ("part", pa.int32())])

SOURCES = pa.schema([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("kind", pa.string())])

_PARTS_KEY = b"yolact.parts"


@dataclass(frozen=True)
class Part:
    """One part of the manifest: its number and how many units and images it holds."""

    number: int
    units: int
    images: int

    def unit_numbers(self) -> range:
        first = self.number * UNITS_PER_PART
        return range(first, first + self.units)


@dataclass(frozen=True)
class Generation:
    """What one indexing of the lake added."""

    number: int
    sources: pa.Table
    parts: tuple[Part, ...]


def unit_starts(lengths: np.ndarray, images_per_unit: int, bytes_per_unit: int) -> np.ndarray:
    """First row of each unit in a group of neighbouring images.

    `lengths` (n,) int64 are bytes per image, negative where unknown. A unit holds at most `images_per_unit` images, and
    at most `bytes_per_unit` bytes plus one image. Empty input gives no units.
    """
    rows = np.arange(len(lengths), dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))[:-1]]) if len(lengths) else rows
    key = np.stack([rows // images_per_unit, before // bytes_per_unit])
    changed = np.any(key[:, 1:] != key[:, :-1], axis=0)
    return np.flatnonzero(np.concatenate([[True], changed])) if len(lengths) else rows


def cut_parts(
    groups: Iterable[pa.Table], *, first_part: int, images_per_part: int, images_per_unit: int, bytes_per_unit: int
) -> Iterator[tuple[Part, pa.Table]]:
    """Number the rows of `groups` with part and unit, and yield whole parts in order.

    A group (a shard's members, or loose images) is never joined with another in one unit. A part is closed by the unit
    that takes it to `images_per_part`. Memory: one part and one group.
    """
    number, units, images = first_part, 0, 0
    pieces: list[pa.Table] = []

    def close() -> tuple[Part, pa.Table]:
        table = pa.concat_tables(pieces).combine_chunks()
        return Part(number, units, images), table

    for group in groups:
        starts = unit_starts(group["length"].to_numpy(), images_per_unit, bytes_per_unit)
        ends = np.append(starts[1:], group.num_rows)
        first = 0
        while first < len(starts):
            begin = int(starts[first])
            # the unit that fills the part is the first one whose end reaches what is left
            last = min(int(np.searchsorted(ends, begin + images_per_part - images)), len(starts) - 1)
            end = int(ends[last])
            index = units + np.repeat(np.arange(last - first + 1), ends[first : last + 1] - starts[first : last + 1])
            piece = group.slice(begin, end - begin)
            piece = piece.append_column("unit", pa.array(number * UNITS_PER_PART + index, pa.int64()))
            pieces.append(piece.append_column("part", pa.array(np.full(end - begin, number), pa.int32())))
            units += last - first + 1
            images += end - begin
            first = last + 1
            if images >= images_per_part:
                yield close()
                number, units, images, pieces = number + 1, 0, 0, []
    if images:
        yield close()


def read_generations(output: Output) -> list[Generation]:
    """All complete generations, oldest first."""
    found = [entry.uri for entry in storage.list_objects(output.generations) if entry.uri.endswith(".parquet")]
    return [_generation(number, tables.read(uri)) for number, uri in enumerate(sorted(found))]


def _generation(number: int, sources: pa.Table) -> Generation:
    parts = json.loads(sources.schema.metadata[_PARTS_KEY])
    return Generation(number, sources, tuple(Part(*part) for part in parts))


def next_part_number(generations: Sequence[Generation]) -> int:
    """A number no part has; those of parts that were replaced are not used again."""
    return max((part.number for generation in generations for part in generation.parts), default=-1) + 1


def write_part(output: Output, part: Part, table: pa.Table) -> None:
    storage.put_atomic(output.manifest_part(part.number), tables.to_bytes(table.cast(MANIFEST), row_group_size=8192))


def complete_generation(output: Output, number: int, sources: pa.Table, parts: list[Part]) -> None:
    """Make the parts written for this generation final; the last step of indexing."""
    described = json.dumps([[part.number, part.units, part.images] for part in parts])
    table = sources.cast(SOURCES).replace_schema_metadata({_PARTS_KEY: described})
    storage.put_atomic(output.generation(number), tables.to_bytes(table))


def rows_of_unit(part_table: pa.Table, unit: int) -> pa.Table:
    """The manifest rows of one unit, in order."""
    units = part_table["unit"].to_numpy()
    first, last = np.searchsorted(units, [unit, unit + 1])
    return part_table.slice(first, last - first)
