"""Publishing a part: its committed units become one file in `labels/`, and their staged objects go.

It can be repeated at any point. The file is put at once, in manifest order, after its ids were compared with the
manifest's; only then are the staged objects removed. A reader of `labels/` sees whole parts and no id twice.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from jobs import storage
from jobs.label.manifest.parts import Part
from jobs.runtime.errors import JobError
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.schema import LABELS, STATUS_OK

_PUBLISHING_AT_ONCE = 2


class Publisher:
    """Publishes parts by Ray tasks, a few at a time, while the pipeline goes on."""

    def __init__(self, output: Output, metadata: dict[str, str]) -> None:
        self._output, self._metadata = output, metadata
        # no CPU of its own: it waits for the store, and must run while the pipeline holds every CPU
        self._publish = ray.remote(publish_part).options(num_cpus=0, max_retries=3)
        self._waiting: list[Part] = []
        self._running: dict[ray.ObjectRef, Part] = {}
        self.unreachable: list[str] = []

    def submit(self, part: Part) -> None:
        self._waiting.append(part)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < _PUBLISHING_AT_ONCE:
            part = self._waiting.pop(0)
            self._running[self._publish.remote(self._output, part, self._metadata)] = part

    def poll(self, timeout: float | None = 0) -> None:
        """Take in what has finished; `timeout` None waits for one. Raises `JobError` where a part does not add up."""
        ready, _ = ray.wait(list(self._running), timeout=timeout) if self._running else ([], [])
        for reference in ready:
            part = self._running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, storage.TransientStorageError):
                    self.unreachable.append(f"part {part.number}: {error.cause}")
                elif isinstance(error.cause, JobError):
                    raise error.cause from None
                else:
                    raise
        self._fill()

    def drain(self) -> None:
        while self._running:
            self.poll(timeout=None)


COUNTS_KEY = b"yolact.counts"

_ROW_GROUP_BYTES = 64 << 20
_READERS = 8


@dataclass
class Counts:
    """The books of one part, or of several: images by status, and instances."""

    images: int = 0
    instances: int = 0
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.images - self.statuses.get(STATUS_OK, 0)

    def add(self, other: Counts) -> None:
        self.images += other.images
        self.instances += other.instances
        self.statuses = dict(Counter(self.statuses) + Counter(other.statuses))


def count_rows(rows: pa.Table) -> Counts:
    statuses = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["status"]).to_pylist()}
    instances = pc.sum(pc.list_value_length(rows["instances"])).as_py() or 0
    return Counts(rows.num_rows, instances, statuses)


def publish_part(output: Output, part: Part, metadata: dict[str, str]) -> Counts:
    """Write `labels/part-NNNNNN.parquet` from the staged units of `part`, then remove them. Idempotent."""
    uris = [output.staged_unit(unit) for unit in part.unit_numbers()]
    try:
        counts = _write_part(output, part, metadata, uris)
    except storage.ObjectMissingError:
        # another try, cut off or still at work for a killed driver, has published them and begun to remove them
        if not storage.exists(output.labels_part(part.number)):
            raise
        counts = read_counts(output, part.number)
    storage.delete_objects(uris)
    return counts


def _write_part(output: Output, part: Part, metadata: dict[str, str], uris: list[str]) -> Counts:
    expected = tables.read(output.manifest_part(part.number))["image_id"]
    counts = Counts()
    written: list[pa.ChunkedArray] = []
    with tempfile.TemporaryDirectory(prefix="yolact-publish-") as folder:
        path = Path(folder) / "part.parquet"
        with pq.ParquetWriter(path, LABELS.with_metadata(metadata), compression="zstd") as writer:
            for rows in _row_groups(_read_ahead(uris)):
                writer.write_table(rows.replace_schema_metadata(metadata), row_group_size=rows.num_rows)
                counts.add(count_rows(rows))
                written.append(rows["image_id"])
            writer.add_key_value_metadata({COUNTS_KEY.decode(): json.dumps(asdict(counts))})
        ids = pa.chunked_array([chunk for column in written for chunk in column.chunks], pa.string())
        if not ids.equals(expected):
            raise JobError(
                f"part {part.number}: the committed ids are not the manifest's; nothing was published. "
                f"Remove {output.staged_part(part.number)} and run again"
            )
        storage.upload_file(path, output.labels_part(part.number))
    return counts


def read_counts(output: Output, part: int) -> Counts:
    """The books of a published part, from its footer."""
    with storage.open_file(output.labels_part(part)) as file:
        metadata = pq.read_metadata(file).metadata
    return Counts(**json.loads(metadata[COUNTS_KEY]))


def _read_ahead(uris: list[str]) -> Iterator[pa.Table]:
    """The staged tables in order, a few requests in flight."""
    with ThreadPoolExecutor(_READERS) as pool:
        waiting = iter(uris)
        ahead = [pool.submit(tables.read, uri) for uri in islice(waiting, _READERS)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(tables.read, uri) for uri in islice(waiting, 1)]


def _row_groups(staged: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables until they make a row group worth reading at once."""
    pieces: list[pa.Table] = []
    held = 0
    for table in staged:
        pieces.append(table.replace_schema_metadata(None))
        held += table.nbytes
        if held >= _ROW_GROUP_BYTES:
            yield pa.concat_tables(pieces)
            pieces, held = [], 0
    if pieces:
        yield pa.concat_tables(pieces)
