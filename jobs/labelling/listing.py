"""The lake's listing held against what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.labelling.manifest import Generation
from jobs.lake import Source


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
