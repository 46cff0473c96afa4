"""The listing of the lake, compared with what the manifest knows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.label.manifest.parts import Generation, read_generations, source_versions
from jobs.label.options import log
from jobs.lake import Source
from jobs.table import record as run_record
from jobs.table.output import Output


@dataclass(frozen=True)
class LakeState:
    """The sources that no generation knows, and those that were replaced in place since they were indexed."""

    new: list[Source]
    changed: list[Source]


def compare(sources: Sequence[Source], generations: Sequence[Generation]) -> LakeState:
    """What of `sources` is not in the generations as it is now."""
    known = source_versions(generations)
    new = [source for source in sources if source.uri not in known]
    changed = [s for s in sources if s.uri in known and s.was_replaced(*known[s.uri])]
    return LakeState(new, changed)


def listing_digest(sources: Sequence[Source]) -> str:
    """What a finished run remembers of the lake: equal digests mean that nothing is new and nothing was replaced."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.uri}\0{source.size}\0{source.etag}\n".encode())
    return digest.hexdigest()


def parts_digest(numbers: Iterable[int]) -> str:
    """What a finished run remembers of `labels/`: the numbers of its parts, as one sha256."""
    return hashlib.sha256(json.dumps(sorted(numbers)).encode()).hexdigest()


def finished_run(output: Output, sources: Sequence[Source], relabel_changed: bool) -> dict[str, Any] | None:
    """The marker of a run that has labelled all of `sources`; None where there is something to do.

    A marker without the digest of the parts is of an earlier version, which did not check that ids stand once. A
    marker whose parts are not all there does not count either. Both are left to a run.
    """
    marker = run_record.read_success(output)
    if marker is None or marker.get("parts") != parts_digest(output.published_parts()):
        return None
    # the digest spares a look at what is known of a large lake
    if marker["listing"] == listing_digest(sources):
        return marker
    state = compare(sources, read_generations(output))
    if state.new or (state.changed and relabel_changed):
        return None
    if state.changed:
        report_changed(state.changed)
    return marker


def report_changed(changed: list[Source]) -> None:
    """Say which objects of the lake are not those that were labelled."""
    some = ", ".join(source.uri for source in changed[:3]) + (", …" if len(changed) > 3 else "")
    log.warning(
        "%d objects were replaced since they were indexed (%s); --relabel-changed labels them again", len(changed), some
    )
