"""From the lake's listing to a manifest: Ray tasks index new sources, which are appended as a generation.

Until the generation is complete, the index of each shard is a separate object. So an interrupted indexing continues
where it stopped. The object of the generation is written last and makes the generation final.

A large lake becomes several generations, each as large as all before it: the images of one are labelled while the next
one is indexed (`jobs.label.manifest.growth`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import ray

from jobs import lake, storage
from jobs.label.fence import Fence
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.parts import Generation, Part, Sizes
from jobs.lake import Source, SourceTable
from jobs.runtime.errors import UsageError
from jobs.table import parquet as tables
from jobs.table.output import Output

log = logging.getLogger(__name__)

_IMAGES_AT_ONCE = 65_536
#: how often somebody who waits for a shard looks whether to go on waiting
_CHECK_SECONDS = 1.0
#: images of the first generation of a large lake, so that the first labels come soon
FIRST_IMAGES = 65_536
#: an image's bytes in a shard, to guess how many images it holds
_BYTES_PER_IMAGE = 150_000


@dataclass(frozen=True)
class IndexTasks:
    """How shards are indexed by Ray tasks: how many at the same time, and the CPUs that each one reserves."""

    at_once: int = 32
    cpus: float = 1.0


@dataclass(frozen=True)
class Indexing:
    """How a lake becomes a manifest under `output`. `fence` holds for every write."""

    output: Output
    sizes: Sizes
    columns: lake.ParquetColumns
    fence: Fence
    limit: int | None = None
    """most images of the whole manifest; None for the whole lake"""
    tasks: IndexTasks = IndexTasks()


@dataclass(frozen=True)
class Added:
    """A new generation, and what its shards hold besides images."""

    generation: Generation
    passed_over: lake.PassedOver


def add_generation(indexing: Indexing, generations: Sequence[Generation], new: Sequence[Source]) -> Added:
    """Index `new` and append it to the manifest.

    Raises `storage.TransientStorageError`, `UsageError`, and `JobError` where another driver took over.
    """
    output, sizes, fence, limit = indexing.output, indexing.sizes, indexing.fence, indexing.limit
    known = manifest.all_parts(generations)
    first_part = manifest.next_part_number(generations)
    passed_over: list[lake.PassedOver] = []
    groups = list_groups(indexing, new, passed_over)
    if limit is not None:
        groups = _first_rows(groups, limit - sum(part.images for part in known))
    if sizes.images_per_unit is None:
        groups, images_per_unit = _fitted_to(groups)
    else:
        images_per_unit = sizes.images_per_unit
    parts: list[Part] = []
    for part, table in manifest.cut_parts(
        groups,
        first_part=first_part,
        images_per_part=sizes.images_per_part,
        images_per_unit=images_per_unit,
        bytes_per_unit=sizes.bytes_per_unit,
    ):
        manifest.write_part(output, part, table, fence)
        parts.append(part)
    generation = Generation(len(generations), source_table(new), tuple(parts), next_part=first_part)
    manifest.complete_generation(output, generation, known, fence, fresh={part.number for part in parts})
    fence.delete([index_uri(output, source) for source in new if source.kind != "image"])
    return Added(generation, lake.PassedOver.together(passed_over))


def report_passed_over(passed_over: lake.PassedOver, *, found_any: bool) -> None:
    """Log which members of shards were passed over. Raises `UsageError` if the lake holds nothing else."""
    if not passed_over.counts:
        return
    if not found_any:
        raise UsageError(f"nothing to label: {passed_over.describe()}; {passed_over.reason}")
    log.warning("passed over in shards: %s", passed_over.describe())


def cut_sources(sources: Sequence[Source], known_images: int) -> Iterator[Sequence[Source]]:
    """Cut new sources into generations: `FIRST_IMAGES` images or so, then each as many as there were before it.

    `known_images` is the number of images in the manifest. What is left joins the last one if it is smaller than that.
    """
    guesses = np.cumsum([_expected_images(source) for source in sources])
    start, before = 0, 0
    while start < len(sources):
        size = max(FIRST_IMAGES, known_images + before)
        end = int(np.searchsorted(guesses, before + size)) + 1
        if end >= len(sources) or guesses[-1] - guesses[end - 1] < size:
            end = len(sources)
        yield sources[start:end]
        start, before = end, int(guesses[end - 1])


def _expected_images(source: Source) -> int:
    return 1 if source.kind == "image" else max(1, source.size // _BYTES_PER_IMAGE)


def source_table(sources: Sequence[Source]) -> pa.Table:
    return SourceTable.of(sources).table.cast(manifest.SOURCES)


def list_groups(
    indexing: Indexing, sources: Sequence[Source], passed_over: list[lake.PassedOver] | None = None
) -> Iterator[pa.Table]:
    """Manifest rows in the order of `sources`: one table for each shard, and tables of loose images.

    `passed_over` gets, for each shard, the count of members that give no rows.
    """
    shards = [source for source in sources if source.kind != "image"]
    done = {entry.uri for entry in storage.list_objects(indexing.output.index)} if shards else set()
    indexed = _index_shards(indexing, shards, done)
    for loose, run in groupby(sources, lambda source: source.kind == "image"):
        if loose:
            while chunk := list(islice(run, _IMAGES_AT_ONCE)):
                yield lake.image_rows(chunk)
        else:
            for _ in run:
                table = tables.read(next(indexed))
                if passed_over is not None:
                    passed_over.append(lake.PassedOver.of(table))
                yield table


def index_uri(output: Output, shard: Source) -> str:
    """Where the index of a shard lies until the generation is complete."""
    name = hashlib.sha256(f"{shard.uri}\0{shard.size}\0{shard.etag}".encode()).hexdigest()[:32]
    return output.shard_index(name)


def _index_shards(indexing: Indexing, shards: Sequence[Source], done: set[str]) -> Iterator[str]:
    """The uri of each shard's index, in order. A limited number of tasks runs ahead of the reader."""
    output, columns, tasks = indexing.output, indexing.columns, indexing.tasks
    waiting = iter(shards)
    ahead: list[tuple[Source, str, ray.ObjectRef | None]] = []
    # over all nodes: without a CPU of their own, all of them would run where the driver is
    spread = {"scheduling_strategy": "SPREAD"} if tasks.cpus == 0 else {}
    index = ray.remote(_index_shard).options(max_retries=2, num_cpus=tasks.cpus, **spread)

    def submit(shard: Source) -> tuple[Source, str, ray.ObjectRef | None]:
        uri = index_uri(output, shard)
        return shard, uri, None if uri in done else index.remote(shard, uri, columns)

    ahead += [submit(shard) for shard in islice(waiting, tasks.at_once)]
    while ahead:
        shard, uri, task = ahead.pop(0)
        if task is not None:
            try:
                _wait_for(task, indexing.fence)
            except ray.exceptions.WorkerCrashedError:
                # this shard killed the process that read it, so it is indexed again in a child process of the worker
                _wait_for(index.remote(shard, uri, columns, in_child=True), indexing.fence)
            except ray.exceptions.RayTaskError as error:
                # the user sees the error itself, without Ray's text about a task
                if isinstance(error.cause, (storage.StorageError, UsageError)):
                    raise error.cause from None
                raise
        yield uri
        ahead += [submit(shard) for shard in islice(waiting, 1)]


def _wait_for(task: ray.ObjectRef, fence: Fence) -> None:
    """Wait for a task to end. A shard may take minutes: a driver that is stopped or loses its lease does not wait."""
    while True:
        try:
            ray.get(task, timeout=_CHECK_SECONDS)
            return
        except ray.exceptions.GetTimeoutError:
            fence.check()


def _index_shard(shard: Source, uri: str, columns: lake.ParquetColumns, in_child: bool = False) -> None:
    index = lake.index_in_child if in_child else lake.index_source
    storage.put_atomic(uri, tables.to_bytes(index(shard, columns)))


def _first_rows(groups: Iterator[pa.Table], limit: int) -> Iterator[pa.Table]:
    if limit <= 0:
        return
    for group in groups:
        yield group.slice(0, limit)
        limit -= min(limit, group.num_rows)
        if limit == 0:
            return


def _fitted_to(groups: Iterator[pa.Table]) -> tuple[Iterator[pa.Table], int]:
    """The groups, and the images of a unit: 64, or fewer in a small lake, so that all actors get work."""
    head: list[pa.Table] = []
    images = 0
    for group in groups:
        head.append(group)
        images += group.num_rows
        if images >= 64 * 64:
            break

    def again() -> Iterator[pa.Table]:
        yield from head
        yield from groups

    return again(), min(64, max(8, images // 64))
