"""The lake's listing held against what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.label.manifest.parts import Generation, read_generations
from jobs.label.options import log
from jobs.lake import Source
from jobs.table import record as run_record
from jobs.table.output import Output


@dataclass(frozen=True)
class LakeState:
    """The listing held against the generations: what is new, and what changed in place since it was indexed."""

    new: list[Source]
    changed: list[Source]


def compare(sources: Sequence[Source], generations: Sequence[Generation]) -> LakeState:
    known: dict[str, tuple[int, str]] = {}
    for generation in generations:
        columns = (generation.sources[name].to_pylist() for name in ("uri", "size", "etag"))
        known.update((uri, (size, etag)) for uri, size, etag in zip(*columns, strict=True))
    new = [source for source in sources if source.uri not in known]
    changed = [s for s in sources if s.uri in known and known[s.uri] != (s.size, s.etag)]
    return LakeState(new, changed)


def listing_digest(sources: Sequence[Source]) -> str:
    """What a finished run remembers of the lake, to see without a look at the manifest that nothing is new."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.uri}\0{source.size}\0{source.etag}\n".encode())
    return digest.hexdigest()


def finished_run(output: Output, sources: Sequence[Source], relabel_changed: bool) -> dict[str, Any] | None:
    """The marker of a run that has labelled all of `sources`; None where there is something to do."""
    marker = run_record.read_success(output)
    # the digest spares a look at what is known of a large lake
    if marker is None or marker["listing"] == listing_digest(sources):
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
