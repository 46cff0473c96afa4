"""The manifest: every image of the lake once, cut into parts and units.

A *part* is one Parquet file here and one in `labels/`. A *unit* is a run of neighbouring images within a part and is
the smallest piece of work. Each indexing of the lake adds one *generation*. It is complete when its object under
`_state/sources/` exists: its sources (uri, size, etag) are then known, and its parts are final. Manifest files that no
complete generation names were left by an interrupted indexing; the next run removes them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.label.fence import Fence
from jobs.label.manifest.ids import find_doubled, hash_object
from jobs.lake import INDEX
from jobs.runtime.errors import JobError
from jobs.table import parquet as tables
from jobs.table.output import UNITS_PER_PART, Output

MANIFEST = pa.schema([*INDEX, ("unit", pa.int64()), ("part", pa.int32())])

SOURCES = pa.schema([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("kind", pa.string())])

_PARTS_KEY = b"yolact.parts"
_NOTES_KEY = b"yolact.notes"


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
    """What one indexing of the lake added.

    `next_part` is a part number that was free when the generation was completed. `ids_checked` is True if its ids were
    checked to be unique in the manifest up to it; earlier versions of this program did not check. `version` is the
    version of its object, None if the object is not written yet.
    """

    number: int
    sources: pa.Table
    parts: tuple[Part, ...]
    next_part: int = 0
    ids_checked: bool = True
    version: str | None = None


@dataclass(frozen=True)
class Sizes:
    """How the manifest is cut. If `images_per_unit` is None, it follows from the size of the lake."""

    images_per_part: int = 65_536
    images_per_unit: int | None = None
    bytes_per_unit: int = 64 << 20


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
            # the part is full with the first unit that ends at or after the number of images that the part still takes
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
    return [_read_generation(number, uri) for number, uri in enumerate(sorted(found))]


def _read_generation(number: int, uri: str) -> Generation:
    found = storage.read_versioned(uri)
    if found is None:
        raise JobError(f"{uri} was removed while it was being read; run the same command again")
    data, version = found
    sources = tables.from_bytes(data)
    parts = tuple(Part(*part) for part in json.loads(sources.schema.metadata[_PARTS_KEY]))
    notes = json.loads(sources.schema.metadata.get(_NOTES_KEY, b"{}"))
    return Generation(
        number,
        sources,
        parts,
        next_part=notes.get("next_part", 0),
        ids_checked=notes.get("ids_checked", False),
        version=version,
    )


def all_parts(generations: Sequence[Generation]) -> list[Part]:
    """The parts of all generations, in the order of the manifest."""
    return [part for generation in generations for part in generation.parts]


def source_versions(generations: Sequence[Generation]) -> dict[str, tuple[int, str]]:
    """Size and etag of every known source, by its uri."""
    versions: dict[str, tuple[int, str]] = {}
    for generation in generations:
        columns = (generation.sources[name].to_pylist() for name in ("uri", "size", "etag"))
        versions.update((uri, (size, etag)) for uri, size, etag in zip(*columns, strict=True))
    return versions


def next_part_number(generations: Sequence[Generation]) -> int:
    """A number that no part has or had, so that a late request for a replaced part cannot touch a new part."""
    used = [part.number + 1 for part in all_parts(generations)]
    return max([*used, *(generation.next_part for generation in generations)], default=0)


def write_part(output: Output, part: Part, table: pa.Table, fence: Fence) -> None:
    """Write a part of a generation that is not complete yet, and the hashes of its ids."""
    data = tables.to_bytes(table.cast(MANIFEST), row_group_size=8192)
    fence.create(output.part_ids(part.number), hash_object(table["image_id"]))
    fence.create(output.manifest_part(part.number), data)


def complete_generation(
    output: Output, generation: Generation, beside: Sequence[Part], fence: Fence, fresh: Collection[int] = ()
) -> None:
    """Make a generation final; the last step of indexing. Its version says which object it takes the place of, if any.

    `beside` are the parts of the other generations, and `fresh` the numbers of the parts that no complete generation
    names yet. An id that stands twice is changed in the later one of its rows, where that is in a fresh part: a number
    is put behind it. Raises `JobError` where an id stands twice in parts that are not fresh.
    """
    make_ids_unique(output, [*beside, *generation.parts], fence, fresh)
    put_generation(output, generation, fence)


def put_generation(output: Output, generation: Generation, fence: Fence) -> None:
    """Write the object that makes a generation final. The caller has checked its ids."""
    described = json.dumps([[part.number, part.units, part.images] for part in generation.parts])
    notes = json.dumps({"next_part": next_part_number([generation]), "ids_checked": True})
    table = generation.sources.cast(SOURCES).replace_schema_metadata({_PARTS_KEY: described, _NOTES_KEY: notes})
    fence.replace(output.generation(generation.number), tables.to_bytes(table), generation.version)


def make_ids_unique(output: Output, parts: Sequence[Part], fence: Fence, fresh: Collection[int]) -> None:
    """Change ids that stand twice, in rows of `fresh` parts, until every id of `parts` stands once.

    The rule is that of names that come twice in one shard: the first one keeps its id, the next get #2, #3 … behind it.
    Raises `JobError` where an id stands twice and none of its later rows is in a fresh part.
    """
    copies: Counter[str] = Counter()
    while doubled := find_doubled(output, {part.number: part.images for part in parts}, fence):
        changes: defaultdict[int, dict[int, str]] = defaultdict(dict)
        for places in doubled:
            # a row of a final part keeps its id, even if it comes later in the manifest
            first, *later = sorted(places, key=lambda place: (place.part in fresh, place))
            for place in later:
                if place.part not in fresh:
                    raise JobError(f"the books do not balance: {first.image_id} stands twice in {output.manifest}")
                copies[first.image_id] += 1
                changes[place.part][place.row] = f"{first.image_id}#{copies[first.image_id] + 1}"
        for number, new_ids in changes.items():
            _change_ids(output, number, new_ids, fence)


def _change_ids(output: Output, number: int, new_ids: dict[int, str], fence: Fence) -> None:
    """Write a fresh part again with other ids in some rows (row → id)."""
    table = tables.read(output.manifest_part(number))
    ids = table["image_id"].to_pylist()
    for row, image_id in new_ids.items():
        ids[row] = image_id
    table = table.set_column(0, "image_id", pa.array(ids, pa.string()))
    fence.delete([output.manifest_part(number), output.part_ids(number)])
    write_part(output, Part(number, 0, table.num_rows), table, fence)


def remove_strays(output: Output, fence: Fence) -> list[Generation]:
    """Delete the files that an interrupted indexing or relabelling left. Returns the present generations.

    The files are listed before the generations are read. So a part that another driver adds meanwhile is not deleted.
    """
    published, indexed, hashed = output.published_parts(), output.indexed_parts(), output.hashed_parts()
    generations = read_generations(output)
    known = {part.number for part in all_parts(generations)}
    strays = [output.labels_part(number) for number in sorted(published - known)]
    strays += [output.manifest_part(number) for number in sorted(indexed - known)]
    strays += [output.part_ids(number) for number in sorted(hashed - known)]
    if strays:
        fence.delete(strays)
    return generations


def rows_of_unit(part_table: pa.Table, unit: int) -> pa.Table:
    """The manifest rows of one unit, in order."""
    units = part_table["unit"].to_numpy()
    first, last = np.searchsorted(units, [unit, unit + 1])
    return part_table.slice(first, last - first)
