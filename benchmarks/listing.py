"""Memory and CPU time of a large listing: sorted, held against the last one, and digested, with made-up keys.

    python -m benchmarks.listing --keys 1000000

Each way runs in a process of its own. The figures are for each key: bytes of resident memory at the peak, above those
before the listing, and CPU time, both without the store's own answers. A tenth of the keys is new, and a thousandth was
replaced. The plain way is that of Python objects in lists and a dictionary.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness import run_benchmark
from jobs.label.manifest.listing import compare, listing_digest
from jobs.label.manifest.parts import Generation
from jobs.lake import Source
from jobs.lake.sources import ObjectTable, SourceTable
from jobs.storage import ObjectInfo


@dataclass(frozen=True)
class ListingConfig:
    """Options of the measurement."""

    keys: int = 1_000_000
    """objects of the lake"""
    way: Literal["both", "arrow", "plain"] = "both"
    """both: one after the other, each in a process"""


def made_up(keys: int, version: str) -> Iterator[ObjectInfo]:
    """A listing in no order: names as of photos in folders, with one etag in a thousand that depends on `version`."""
    for number in range(keys):
        place = number * 7_919 % keys  # a prime: every place once, unless it divides the number of keys
        changed = version if place % 1000 == 0 else ""
        yield ObjectInfo(
            f"s3://lake/photos/2026/{place // 1000:06d}/{place:012d}.jpg", 150_000, f"{place:032x}{changed}"
        )


def arrow(keys: int, known: Generation) -> tuple[int, int, str]:
    """The way of the jobs. Counts of new and changed objects, and the digest."""
    listed = ObjectTable()
    for item in made_up(keys, "new"):
        listed.add(item)
    sources = SourceTable.of(Source(*item, "image") for item in listed.in_order()).each_once()
    state = compare(sources, [known])
    return len(state.new), len(state.changed), listing_digest(sources)


def plain(keys: int, known: Generation) -> tuple[int, int, str]:
    """The way of Python objects."""
    sources = [Source(*item, "image") for item in sorted(made_up(keys, "new"))]
    once = {source.uri: source for source in sources}
    columns = (known.sources[name].to_pylist() for name in ("uri", "size", "etag"))
    versions = {uri: (size, etag) for uri, size, etag in zip(*columns, strict=True)}
    new = [source for source in once.values() if source.uri not in versions]
    changed = [s for s in once.values() if s.uri in versions and s.was_replaced(*versions[s.uri])]
    return len(new), len(changed), listing_digest(sources)


def measure_here(config: ListingConfig) -> None:
    """Print the figures of one way as JSON."""
    known = SourceTable.of(
        Source(*item, "image") for item in made_up(config.keys, "old") if not item.uri.endswith("9.jpg")
    )
    generation = Generation(0, known.table, ())
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = (arrow if config.way == "arrow" else plain)(config.keys, generation)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"bytes": (peak - before) * 1024 / config.keys, "us": seconds * 1e6 / config.keys, "found": found}
    print(json.dumps(figures))


def main(config: ListingConfig) -> None:
    """Print a row for each way."""
    if config.way != "both":
        measure_here(config)
        return
    print("| way | bytes a key | µs of CPU a key |\n|---|---|---|")
    answers = []
    for way in ("plain", "arrow"):
        command = [sys.executable, "-m", "benchmarks.listing", "--way", way, "--keys", str(config.keys)]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        answers.append(figures["found"])
        print(f"| {way} | {figures['bytes']:.0f} | {figures['us']:.1f} |", flush=True)
    if answers[0] != answers[1]:
        raise RuntimeError(f"the two ways do not agree: {answers}")


if __name__ == "__main__":
    run_benchmark(ListingConfig, __doc__, main)
