"""The end of a run: its books are balanced, and the marker of a finished run is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs import storage
from jobs.label.fence import Fence
from jobs.label.manifest.ids import digest_of, find_doubled, read_hashes
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.publish import Counts, PartBooks, read_books
from jobs.runtime.errors import JobError
from jobs.table.output import Output

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
