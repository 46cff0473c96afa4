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

from jobs import storage, tables
from jobs.errors import JobError
from jobs.labelling.manifest import Part
from jobs.labelling.output import Output
from jobs.schema import LABELS, STATUS_OK

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
