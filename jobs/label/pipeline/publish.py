"""Publishing a part: its committed units become one file in `labels/`, and their staged objects are removed.

It can be repeated at any point. The file is written whole, in manifest order, after its ids were compared with those of
the manifest. The staged objects are removed after that. A reader of `labels/` sees whole parts and no id twice.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, deque
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
from jobs.label.fence import Fence
from jobs.label.manifest.ids import digest_of, hash_object, read_ids
from jobs.label.manifest.parts import Part, all_parts, read_generations
from jobs.runtime.errors import JobError
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.schema import LABELS, STATUS_OK

#: parts that are published at the same time where no more of them wait
_AT_ONCE = 2


class Publisher:
    """Publishes parts by Ray tasks while the pipeline goes on. `unreachable` are its failures.

    Two parts are published at the same time, and one more for every two that wait, up to `most`: a part takes seconds
    on an object store, and a fleet may fill one every second.
    """

    def __init__(self, output: Output, metadata: dict[str, str], fence: Fence, most: int = _AT_ONCE) -> None:
        """`metadata` goes into every file; `fence` travels to the tasks."""
        self._output, self._metadata, self._fence = output, metadata, fence
        self._most = max(_AT_ONCE, most)
        # no CPU of its own: it waits for the store, and must run while the pipeline holds every CPU
        self._publish = ray.remote(publish_part).options(num_cpus=0, max_retries=3)
        self._waiting: deque[Part] = deque()
        self._running: dict[ray.ObjectRef, Part] = {}
        self.unreachable: list[str] = []

    def submit(self, part: Part) -> None:
        """Publish `part` as soon as there is room for its task."""
        self._waiting.append(part)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < min(self._most, _AT_ONCE + len(self._waiting) // 2):
            part = self._waiting.popleft()
            self._running[self._publish.remote(self._output, part, self._metadata, self._fence)] = part

    def poll(self, timeout: float | None = 0) -> None:
        """Take in the tasks that have finished; `timeout` (seconds) None waits for one.

        Raises `JobError` where the ids of a part are wrong, or where another driver took over.
        """
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
            except ray.exceptions.RayError as error:
                # its process or node died in every try: the staged units are still there for the next run
                self.unreachable.append(f"part {part.number}: {type(error).__name__}")
        self._fill()

    def drain(self) -> None:
        """Wait until every part that was submitted has its end."""
        while self._running:
            self.poll(timeout=None)


COUNTS_KEY = b"yolact.counts"
_IDS_KEY = b"yolact.ids"

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
        """Images without labels."""
        return self.images - self.statuses.get(STATUS_OK, 0)

    def add(self, other: Counts) -> None:
        """Take in the books of another part."""
        self.images += other.images
        self.instances += other.instances
        self.statuses = dict(Counter(self.statuses) + Counter(other.statuses))


def count_rows(rows: pa.Table) -> Counts:
    """The books of some rows of a label table."""
    statuses = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["status"]).to_pylist()}
    instances = pc.sum(pc.list_value_length(rows["instances"])).as_py() or 0
    return Counts(rows.num_rows, instances, statuses)


def publish_part(output: Output, part: Part, metadata: dict[str, str], fence: Fence) -> Counts:
    """Write `labels/part-NNNNNN.parquet` from the staged units of `part`, then remove them. It can be repeated.

    Raises `JobError` where the ids are not those of the manifest, or where another driver took over.
    """
    uris = [output.staged_unit(unit) for unit in part.unit_numbers()]
    try:
        counts = _write_part(output, part, metadata, uris, fence)
    except storage.ObjectMissingError:
        # another try has published them and begun to remove them: one that was cut off, or one of a killed driver
        if not storage.exists(output.labels_part(part.number)):
            raise
        counts = read_books(output, part.number).counts
    fence.delete(uris)
    return counts


def _write_part(output: Output, part: Part, metadata: dict[str, str], uris: list[str], fence: Fence) -> Counts:
    expected = read_ids(output.manifest_part(part.number))
    counts = Counts()
    written: list[pa.ChunkedArray] = []
    with tempfile.TemporaryDirectory(prefix="yolact-publish-") as folder:
        path = Path(folder) / "part.parquet"
        with pq.ParquetWriter(path, LABELS.with_metadata(metadata), compression="zstd") as writer:
            for rows in _row_groups(_read_ahead(uris)):
                writer.write_table(rows.replace_schema_metadata(metadata), row_group_size=rows.num_rows)
                counts.add(count_rows(rows))
                written.append(rows["image_id"])
            writer.add_key_value_metadata(
                {
                    COUNTS_KEY.decode(): json.dumps(asdict(counts)),
                    _IDS_KEY.decode(): digest_of(hash_object(expected)),
                }
            )
        ids = pa.chunked_array([chunk for column in written for chunk in column.chunks], pa.string())
        if not ids.equals(expected):
            raise JobError(
                f"part {part.number}: the committed ids are not the manifest's; nothing was published. "
                f"Remove {output.staged_part(part.number)} and run again"
            )
        fence.upload(path, output.labels_part(part.number))
    _check_still_wanted(output, part, fence)
    return counts


def _check_still_wanted(output: Output, part: Part, fence: Fence) -> None:
    """The upload may have outlasted the lease. A part that another driver has replaced meanwhile is removed again.

    A part that the manifest still names may stay: every driver writes the same rows into it.
    """
    try:
        fence.check()
    except JobError:
        if part not in all_parts(read_generations(output)):
            storage.delete_objects([output.labels_part(part.number)])
        raise


@dataclass(frozen=True)
class PartBooks:
    """What a published part says of itself: its counts, and the digest of its ids (see `ids.digest_of`)."""

    counts: Counts
    ids_sha256: str


def read_books(output: Output, part: int) -> PartBooks:
    """The books of a published part, from its footer. Its ids are read where an earlier version left no digest."""
    uri = output.labels_part(part)
    with storage.open_file(uri) as file:
        metadata = pq.read_metadata(file).metadata
    ids = metadata.get(_IDS_KEY)
    return PartBooks(
        Counts(**json.loads(metadata[COUNTS_KEY])),
        digest_of(hash_object(read_ids(uri))) if ids is None else ids.decode(),
    )


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
