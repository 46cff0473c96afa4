"""The end of a run: its books are balanced, the marker of a finished run is written, and the user reads how it went."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs import storage
from jobs.label.fence import Fence
from jobs.label.manifest.ids import digest_of, find_doubled, read_hashes
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.passes import Passes, Totals
from jobs.label.pipeline.publish import Counts, PartBooks, read_books
from jobs.label.pipeline.unit import UnitRecord
from jobs.runtime.errors import JobError
from jobs.table import record as run_record
from jobs.table.output import Output
from jobs.table.record import RunEntry
from jobs.table.schema import STATUS_OK

_READERS = 16


def balance(output: Output, parts: Sequence[Part], fence: Fence) -> Counts:
    """The counts of all labels, after they were held against the manifest.

    Raises `JobError` where `labels/` does not hold every id of the manifest once.
    """
    if output.published_parts() != {part.number for part in parts}:
        raise _unbalanced(output, "labels/ holds other parts than the manifest names")
    with ThreadPoolExecutor(_READERS) as pool:
        books = list(pool.map(lambda part: _books_of(output, part, fence), parts))
    counts = Counts()
    for of_part in books:
        counts.add(of_part.counts)
    if doubled := find_doubled(output, {part.number: part.images for part in parts}, fence):
        raise _unbalanced(output, f"{len(doubled):,} ids stand twice, such as {doubled[0][0].image_id}")
    return counts


def _books_of(output: Output, part: Part, fence: Fence) -> PartBooks:
    books = read_books(output, part.number)
    if books.counts.images != part.images:
        raise _unbalanced(
            output, f"part {part.number} has {part.images:,} images in the manifest and {books.counts.images:,} rows"
        )
    if books.ids_sha256 != digest_of(read_hashes(output, part.number, fence)):
        raise _unbalanced(output, f"part {part.number} has other ids than the manifest")
    return books


def _unbalanced(output: Output, what: str) -> JobError:
    return JobError(f"the books do not balance: {what}; nothing was marked as finished in {output.uri}")


def write_success(output: Output, marker: Mapping[str, Any], fence: Fence) -> None:
    """Put the marker, the last step of a run. A marker that is there already is replaced."""
    found = storage.read_versioned(output.success)
    fence.replace(output.success, json.dumps(marker, indent=2).encode(), None if found is None else found[1])


def closed_entry(entry: RunEntry, totals: Totals, seconds: float) -> RunEntry:
    """The entry of run.json for this start, with its end and what was done in `seconds` of labelling."""
    return dataclasses.replace(
        entry,
        finished=run_record.now(),
        images=totals.images,
        seconds=round(seconds, 3),
        images_per_second=round(totals.images / max(seconds, 1e-3), 3),
        steady=totals.steady(),
        stage_seconds={stage: round(spent, 3) for stage, spent in totals.seconds.items()},
        retries=dict(totals.retries),
    )


def can_run_again(missing: Sequence[int], passes: Passes) -> bool:
    """Whether only the store kept the missing units from their labels, so that another run may label them."""
    problems = _problems(missing, passes)
    # a unit whose workers died left no record; a unit that was not tried, because the store was silent, has none either
    known = len(problems) == len(missing) or not passes.store_answered
    return known and all(problem.unreachable for problem in problems)


def describe_missing(missing: Sequence[int], passes: Passes, unpublished: Sequence[str]) -> str:
    """One line for a run that ends with missing units or parts. `unpublished` has the reason of each such part."""
    reasons = [problem.problem for problem in _problems(missing, passes)] + list(unpublished)
    return (
        f"yolact: {passes.images_in(missing):,} images have no labels yet"
        + (f" ({len(unpublished)} parts unpublished)" if unpublished else "")
        + (f"; last reason: {reasons[-1]}" if reasons else "; their workers died")
        + "; run the same command again"
    )


def _problems(missing: Sequence[int], passes: Passes) -> list[UnitRecord]:
    return [passes.problems[unit] for unit in missing if unit in passes.problems]


def summarise(output: Output, counts: Counts, totals: Totals, seconds: float, parts: int) -> str:
    """What a finished run prints. `counts` are of the whole table; `totals` and `seconds` of this run alone."""
    failures = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.statuses.items()) if status != STATUS_OK)
    retries = sum(totals.retries.values())
    lines = [
        f"images     {counts.images:,} ({counts.images - counts.failed:,} ok, {counts.failed:,} failed"
        + (f": {failures})" if failures else ")"),
        f"instances  {counts.instances:,}",
        f"this run   {totals.images:,} images in {seconds:.1f} s, {totals.images / max(seconds, 1e-3):.2f} images/s"
        + (f", {retries:,} retries" if retries else ""),
        f"labels     {output.labels} ({parts} file{'s' * (parts != 1)})",
    ]
    return "\n".join(lines)
