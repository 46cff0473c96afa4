"""Objects that were replaced in the lake, indexed and labelled again.

A part with rows of a replaced object gets a successor: a new part with a new number, which holds the new rows of that
object. One put switches to the new parts: it writes the generation that names them. Labels and manifest files of parts
that no generation names are strays. They are removed before anything is published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from jobs.label.fence import Fence
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.indexing import Indexing, list_groups
from jobs.label.manifest.parts import Generation, Part, Sizes
from jobs.lake import INDEX, Source
from jobs.table import parquet as tables
from jobs.table.output import Output


def replace_changed(
    indexing: Indexing, generations: Sequence[Generation], changed: Sequence[Source]
) -> list[Generation]:
    """Index `changed` again. Returns the generations with new parts in place of those that held the old rows.

    With `indexing.limit` the manifest does not hold the whole lake: an object that had no row then gets none.
    Raises what indexing raises.
    """
    output, fence = indexing.output, indexing.fence
    fresh = _rows_by_uri(list_groups(indexing, changed), changed)
    fresh_sources = {source.uri: source for source in changed}
    writer = PartWriter(output, indexing.sizes, manifest.next_part_number(generations), fence)
    replaced: list[Generation] = []
    for generation in generations:
        uris = set(generation.sources["uri"].to_pylist()) & fresh.keys()
        if not uris:
            replaced.append(generation)
            continue
        swap = _Swap({uri: fresh[uri] for uri in uris})
        parts = [part for old in generation.parts for part in writer.rewrite(old, generation, swap)]
        if indexing.limit is None:
            parts += writer.write(swap.left_over(), generation)
        sources = _with_fresh(generation.sources, fresh_sources)
        replaced.append(dataclasses.replace(generation, sources=sources, parts=tuple(parts)))
    complete_replaced(output, generations, replaced, writer)
    return manifest.remove_strays(output, fence)


def complete_replaced(
    output: Output, before: Sequence[Generation], after: Sequence[Generation], writer: PartWriter
) -> None:
    """Make the changed generations final. Every id is made unique in the whole manifest first."""
    manifest.make_ids_unique(output, manifest.all_parts(after), writer.fence, writer.written)
    for old, new in zip(before, after, strict=True):
        if new is not old:
            manifest.put_generation(output, dataclasses.replace(new, next_part=writer.free), writer.fence)


def _rows_by_uri(groups: Iterator[pa.Table], sources: Sequence[Source]) -> dict[str, pa.Table]:
    """The index rows of each source. A source without an image has an empty table."""
    found: dict[str, list[pa.Table]] = {source.uri: [] for source in sources}
    for group in groups:
        for uri, rows in _by_uri(group):
            found[uri].append(rows)
    return {uri: pa.concat_tables(rows) if rows else INDEX.empty_table() for uri, rows in found.items()}


def _by_uri(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each source in turn; the table is cut where the source changes."""
    row = 0
    for uri, run in groupby(table["uri"].to_pylist()):
        length = sum(1 for _ in run)
        yield uri, table.slice(row, length)
        row += length


class _Swap:
    """Replaces the old rows of a source by its fresh rows, all of them where its first old row was."""

    def __init__(self, fresh: dict[str, pa.Table]) -> None:
        self._fresh = fresh
        self._placed: set[str] = set()

    def __call__(self, table: pa.Table) -> pa.Table | None:
        """The new rows of a part; None if it has no row of a fresh source."""
        if not pc.any(pc.is_in(table["uri"], pa.array(list(self._fresh), pa.string()))).as_py():
            return None
        return pa.concat_tables([self._rows(uri, rows) for uri, rows in _by_uri(table)] or [table])

    def _rows(self, uri: str, rows: pa.Table) -> pa.Table:
        if uri not in self._fresh:
            return rows
        first = uri not in self._placed
        self._placed.add(uri)
        # a source may span two parts: the first one took all fresh rows, so the second one gets none
        return self._fresh[uri] if first else self._fresh[uri].slice(0, 0)

    def left_over(self) -> pa.Table:
        """The fresh rows of sources that had no row before, such as a shard that held no image."""
        missing = [rows for uri, rows in sorted(self._fresh.items()) if uri not in self._placed]
        return pa.concat_tables([INDEX.empty_table(), *missing])


class PartWriter:
    """Writes parts that replace others. Their numbers start at `free`; `written` holds the numbers used."""

    def __init__(self, output: Output, sizes: Sizes, free: int, fence: Fence) -> None:
        self._output, self._sizes = output, sizes
        self.free, self.fence = free, fence
        self.written: set[int] = set()

    def rewrite(self, part: Part, generation: Generation, change: Callable[[pa.Table], pa.Table | None]) -> list[Part]:
        """Apply `change` to the rows of a part. Returns the part if that gives None, else its new part, or no part."""
        table = tables.read(self._output.manifest_part(part.number)).drop_columns(["unit", "part"])
        rows = change(table)
        return [part] if rows is None else self.write(rows, generation)

    def write(self, rows: pa.Table, generation: Generation) -> list[Part]:
        """One part with `rows` (columns of `INDEX`), of sources of `generation`; none for no rows."""
        parts = []
        # one part replaces one part, although it may hold a few images more or fewer than a new part would
        cut = manifest.cut_parts(
            _groups(rows, _loose_images(generation)),
            first_part=self.free,
            images_per_part=max(1, rows.num_rows),
            images_per_unit=self._sizes.images_per_unit or 64,
            bytes_per_unit=self._sizes.bytes_per_unit,
        )
        for part, table in cut:
            manifest.write_part(self._output, part, table, self.fence)
            self.written.add(part.number)
            self.free = part.number + 1
            parts.append(part)
        return parts


def _loose_images(generation: Generation) -> set[str]:
    sources = generation.sources
    return set(sources.filter(pc.equal(sources["kind"], "image"))["uri"].to_pylist())


def _groups(rows: pa.Table, loose: Collection[str]) -> Iterator[pa.Table]:
    """The rows as indexing groups them: each shard on its own, neighbouring loose images together."""
    row = 0
    for _, run in groupby(rows["uri"].to_pylist(), lambda uri: None if uri in loose else uri):
        length = sum(1 for _ in run)
        yield rows.slice(row, length)
        row += length


def _with_fresh(sources: pa.Table, fresh: Mapping[str, Source]) -> pa.Table:
    rows = sources.replace_schema_metadata(None).to_pylist()
    return pa.Table.from_pylist(
        [fresh[row["uri"]]._asdict() if row["uri"] in fresh else row for row in rows], schema=manifest.SOURCES
    )
