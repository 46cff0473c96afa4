"""The listing of the lake, compared with what the manifest knows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.label.manifest.parts import Generation, read_generations
from jobs.label.options import log
from jobs.lake import SOURCE_COLUMNS, Source, SourceTable
from jobs.table import record as run_record
from jobs.table.output import Output


@dataclass(frozen=True)
class LakeState:
    """The sources that no generation knows, and those that were replaced in place since they were indexed."""

    new: Sequence[Source]
    changed: list[Source]


def compare(sources: Sequence[Source], generations: Sequence[Generation]) -> LakeState:
    """Compare `sources`, the present listing, with what the generations know; memory is that of Arrow tables."""
    listed = SourceTable.of(sources).table
    known = _known_versions(generations)
    place = pc.index_in(listed["uri"], value_set=known["uri"])
    # values are null for a new source
    size, etag = known["size"].take(place), known["etag"].take(place)
    # as `Source.was_replaced`: what a list names has no size and counts as unchanged
    sized = pc.and_(pc.greater_equal(listed["size"], 0), pc.greater_equal(size, 0))
    differs = pc.or_(pc.not_equal(listed["size"], size), pc.not_equal(listed["etag"], etag))
    changed = pc.fill_null(pc.and_(sized, differs), False)
    return LakeState(SourceTable(listed.filter(pc.is_null(place))), list(SourceTable(listed.filter(changed))))


def _known_versions(generations: Sequence[Generation]) -> pa.Table:
    """uri, size and etag of every known source. Of a source of two generations the later one comes first."""
    columns = SOURCE_COLUMNS.names[:3]
    tables = [
        generation.sources.select(columns).replace_schema_metadata(None).cast(pa.schema(list(SOURCE_COLUMNS)[:3]))
        for generation in reversed(generations)
    ]
    return pa.concat_tables([SOURCE_COLUMNS.empty_table().select(columns), *tables])


def listing_digest(sources: Sequence[Source]) -> str:
    """A digest of the listing, kept by a finished run. An equal digest later means that the lake did not change."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.uri}\0{source.size}\0{source.etag}\n".encode())
    return digest.hexdigest()


def parts_digest(numbers: Iterable[int]) -> str:
    """A digest of the part numbers in `labels/`, kept by a finished run."""
    return hashlib.sha256(json.dumps(sorted(numbers)).encode()).hexdigest()


def finished_run(output: Output, sources: Sequence[Source], relabel_changed: bool) -> dict[str, Any] | None:
    """The marker of a run that has labelled all of `sources`; None if there is something to do.

    Two markers do not count, and the run does the work again: one without a digest of the parts, which an earlier
    version wrote that did not check for double ids, and one whose parts are not all in `labels/`.
    """
    marker = run_record.read_success(output)
    if marker is None or marker.get("parts") != parts_digest(output.published_parts()):
        return None
    # with equal digests, the generations of a large lake need not be read
    if marker["listing"] == listing_digest(sources):
        return marker
    state = compare(sources, read_generations(output))
    if state.new or (state.changed and relabel_changed):
        return None
    if state.changed:
        report_changed(state.changed)
    return marker


def report_changed(changed: list[Source]) -> None:
    """Log which objects of the lake were replaced after they were indexed."""
    some = ", ".join(source.uri for source in changed[:3]) + (", …" if len(changed) > 3 else "")
    log.warning(
        "%d objects were replaced since they were indexed (%s); --relabel-changed labels them again", len(changed), some
    )
