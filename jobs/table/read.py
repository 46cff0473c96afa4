"""Read a label table (a run's OUTPUT, its `labels/`, or one file), as rows with decoded masks or as Arrow columns.

    from jobs.read_labels import read_labels
    for image in read_labels("s3://bucket/labelled"):
        for instance in image.instances:
            instance.category, instance.score, instance.mask()   # bool, (height, width)

Parts of a table appear whole, so it can be read while its run is still writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from jobs import storage
from jobs.lake.parquet_rows import CORRUPT
from jobs.runtime.errors import UsageError
from jobs.table.checks import check_batch
from jobs.table.output import Output
from jobs.table.policy import DECIDING_COLUMNS, Policy
from jobs.table.policy_file import PolicyFile
from jobs.table.record import RunRecord
from jobs.table.record import read as read_record
from jobs.table.schema import INSTANCE, LABELS, SCHEMA_VERSION, STATUS_OK, VERSION_KEY, misfit
from yolact.coco.checks import rle_fault

_GLOB = re.compile(r"[*?[]")

#: footers that are read at the same time
_READERS = 16
#: rows decoded at a time: about 10 MB where each has 100 instances of a large image
BATCH_ROWS = 256


@dataclass(frozen=True)
class Instance:
    """One instance of an image, in the pixels of the image after its EXIF orientation is applied.

    `bbox` is x, y, width, height in pixels, and `area` is the number of pixels of the mask. `index` is the position in
    the row (0 is the highest score). `mask_score` is None where the model does not rescore its masks. `stored_rle` is
    the mask as the file has it. Nothing has checked it, so pycocotools must not get it.
    """

    image_id: str
    index: int
    label: int
    category: str
    score: float
    mask_score: float | None
    bbox: tuple[float, float, float, float]
    area: int
    stored_rle: dict[str, Any]

    @cached_property
    def rle(self) -> dict[str, Any]:
        """The mask as a COCO RLE that pycocotools can take. Raises `UsageError` where the file has no such mask."""
        fault = rle_fault(self.stored_rle, *self.stored_rle["size"])
        if fault is not None:
            raise UsageError(f"instance {self.index} of {self.image_id} {fault.message}: the label table is damaged")
        return self.stored_rle

    def mask(self) -> np.ndarray:
        """The decoded mask: (height, width) bool. Raises `UsageError` where the file has no such mask."""
        return coco_mask.decode(self.rle).astype(bool)


@dataclass(frozen=True)
class LabelRow:
    """One image of the table. Where `status` is not "ok", `error` says why, and there are no instances.

    `height` and `width` are pixels after EXIF orientation, None where the image could not be decoded.
    """

    image_id: str
    uri: str
    status: str
    error: str | None
    height: int | None
    width: int | None
    instances: tuple[Instance, ...]

    @property
    def ok(self) -> bool:
        return self.status == STATUS_OK


@dataclass(frozen=True)
class Piece:
    """Row groups of one file that one task reads. `first_row` is the number of its first row in the whole table.

    With a `policy` the rows have the instances that it takes, under its class names.
    """

    uri: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    policy: Policy | None = None

    @property
    def file_name(self) -> str:
        """The name of the file, part-NNNNNN.parquet; the part's manifest has the same name."""
        return self.uri.rsplit("/", 1)[-1]

    def batches(self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Record batches in table order.

        `columns` are names of fields, or of fields of the instances, such as `instances.score`; None is all. A policy
        adds the fields that it decides by. Raises `UsageError` for a value that no label job writes, and for a file
        that is damaged.
        """
        takes_instances = columns is None or any(name.startswith("instances") for name in columns)
        if self.policy is not None and columns is not None and takes_instances:
            columns = [*columns, *(name for name in DECIDING_COLUMNS if name not in columns)]
        row = self.first_row
        for batch in self._stored_batches(columns, batch_rows):
            check_batch(batch, row, self.uri)
            row += batch.num_rows
            yield self.policy.apply(batch) if self.policy is not None and takes_instances else batch

    def _stored_batches(self, columns: Sequence[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        with storage.open_file(self.uri) as file:
            try:
                parquet = pq.ParquetFile(file)
                paths = None if columns is None else _column_paths(parquet, columns)
                # a group at a time: a reader of many groups keeps the memory of each group that it has read
                for group in self.row_groups:
                    yield from parquet.iter_batches(batch_rows, row_groups=[group], columns=paths)
            except CORRUPT as error:
                raise UsageError(
                    f"{self.uri}: {storage.one_line(str(error), 160)}: the label table is damaged"
                ) from None

    def images(self) -> Iterator[LabelRow]:
        """Rows with their instances, in table order."""
        for batch in self.batches(LABELS.names):
            yield from rows_of_batch(batch)


@dataclass(frozen=True)
class LabelTable:
    """A label table, as `open_labels` finds it: its part files in order, and the OUTPUT that they belong to, if any."""

    files: tuple[str, ...]
    output: str | None
    policy: Policy | None = None
    """what `under` has set"""

    @cached_property
    def run(self) -> RunRecord | None:
        """The run's `run.json` (identity, class names, counts); None where there is none."""
        return None if self.output is None else read_record(Output(self.output))

    @cached_property
    def finished(self) -> bool:
        """Whether the run has written its last part."""
        return self.output is not None and storage.exists(Output(self.output).success)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names by label, from run.json or from the policy; empty where there is neither."""
        if self.policy is not None:
            return self.policy.class_names
        return () if self.run is None else self.run.class_names

    def under(self, policy: PolicyFile | None, score_threshold: float | None = None) -> LabelTable:
        """The same table as a policy has it; None changes nothing.

        `score_threshold` holds for the classes for which the policy has none. A table without run.json is read once
        for the names of its classes. Raises `UsageError` where the policy does not fit the table.
        """
        if policy is None:
            return self
        names = self.class_names or self._categories()
        return replace(self, policy=policy.resolve(names, "this table", score_threshold))

    def _categories(self) -> tuple[str, ...]:
        """The names of the classes that have instances, by label."""
        names: dict[int, str] = {}
        for piece in self.pieces():
            for batch in piece.batches(["instances.label", "instances.category"], 65536):
                _, found = flatten_instances(batch)
                labels, categories = found.field("label").to_pylist(), found.field("category").to_pylist()
                names.update(zip(labels, categories, strict=True))
        return tuple(names[label] for label in sorted(names))

    def images(self) -> Iterator[LabelRow]:
        """All rows in order. Memory: a few hundred rows."""
        for piece in self.pieces():
            yield from piece.images()

    def pieces(self, rows_per_piece: int = 8192) -> list[Piece]:
        """Cut the table into pieces of whole row groups, about `rows_per_piece` rows each. Reads only file footers."""
        pieces: list[Piece] = []
        first_row = 0
        for uri, sizes in zip(self.files, _all_row_group_sizes(self.files), strict=True):
            groups: list[int] = []
            rows = 0
            for group, group_rows in enumerate(sizes):
                groups.append(group)
                rows += group_rows
                if rows >= rows_per_piece:
                    pieces.append(Piece(uri, tuple(groups), first_row, rows, self.policy))
                    first_row, groups, rows = first_row + rows, [], 0
            if rows:
                pieces.append(Piece(uri, tuple(groups), first_row, rows, self.policy))
                first_row += rows
        return pieces

    def shares(self, rows_per_piece: int = 8192) -> list[Piece]:
        """The name of `pieces` in version 0.1.0, kept for programs that call it."""
        return self.pieces(rows_per_piece)


def open_labels(labels: str) -> LabelTable:
    """Find a label table's files.

    `labels` is a run's OUTPUT, a folder of Parquet files, a glob, or one file; any fsspec URI. Raises `UsageError`
    where there is none, or where the first file lacks a column of `jobs.table.schema.LABELS`.
    """
    labels = labels.rstrip("/")
    output = None
    if _GLOB.search(labels) and not storage.list_objects(labels):
        files = _matches(labels)
    elif labels.endswith(".parquet") and storage.exists(labels):
        files = [labels]
    else:
        files = _parquet_files(Output(labels).labels)
        run = Output(labels) if files else Output.of_labels(labels)
        files = files or _parquet_files(labels)
        output = None if run is None else run.uri
    if not files:
        raise UsageError(
            f"no label files at {labels!r}; give the OUTPUT of `yolact label`, its labels/ or a Parquet file"
        )
    _footer(files[0])
    return LabelTable(tuple(files), output)


def read_labels(labels: str) -> Iterator[LabelRow]:
    """All rows of a table in order. Memory: a few hundred rows."""
    return open_labels(labels).images()


def read_columns(labels: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of the whole table, in memory. `instances.score` reads only that field of the instances.

    Example: `read_columns(uri, ["image_id", "instances.score"])["instances"]` is a list column of structs.
    """
    pieces = open_labels(labels).pieces()
    return pa.Table.from_batches([batch for piece in pieces for batch in piece.batches(columns, 65536)])


def flatten_instances(batch: pa.RecordBatch) -> tuple[np.ndarray, pa.StructArray]:
    """(ends, instances): all instances of a batch as one struct array, and where those of each row lie in it.

    `ends` is (rows + 1,) int64 and begins with 0: row i has `instances[ends[i]:ends[i + 1]]`.
    """
    column = batch.column("instances")
    counts = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), column.flatten()


def rows_of_batch(batch: pa.RecordBatch) -> Iterator[LabelRow]:
    """The rows of a batch, which must have all columns."""
    for row in batch.to_pylist():
        size = [row["height"], row["width"]]
        instances = tuple(
            Instance(
                image_id=row["image_id"],
                index=index,
                label=found["label"],
                category=found["category"],
                score=found["score"],
                mask_score=found["mask_score"],
                bbox=tuple(found["bbox"]),
                area=found["area"],
                stored_rle={"size": size, "counts": found["mask"]},
            )
            for index, found in enumerate(row["instances"] or ())
        )
        yield LabelRow(row["image_id"], row["uri"], row["status"], row["error"], row["height"], row["width"], instances)


def _all_row_group_sizes(files: Sequence[str]) -> Iterator[list[int]]:
    """`_row_group_sizes` of each file in order. A footer is a request or two, so several are read at the same time."""
    with ThreadPoolExecutor(min(_READERS, max(1, len(files)))) as pool:
        yield from pool.map(_row_group_sizes, files)


def _row_group_sizes(uri: str) -> list[int]:
    """Rows of each row group of a file, whose schema is checked."""
    metadata = _footer(uri)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _footer(uri: str) -> pq.FileMetaData:
    """Raises `UsageError` for a file that holds no rows of `LABELS`; it may have more columns and fields."""
    with storage.open_file(uri) as file:
        try:
            metadata = pq.ParquetFile(file).metadata
            found = metadata.schema.to_arrow_schema()
        except CORRUPT as error:
            raise UsageError(f"{uri!r} is not a Parquet file: {storage.one_line(str(error), 160)}") from None
    version = (metadata.metadata or {}).get(VERSION_KEY, b"").decode(errors="replace")
    if version.isdigit() and int(version) > SCHEMA_VERSION:
        raise UsageError(f"{uri!r} has schema version {version}, and this program reads up to {SCHEMA_VERSION}")
    what = misfit(found)
    if what is not None:
        raise UsageError(f"{uri!r} is not a label table of schema version {SCHEMA_VERSION}: it {what}")
    return metadata


def _column_paths(parquet: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    """The paths in the Parquet file of these fields: `instances.score` is stored as `instances.list.element.score`."""
    stored = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    chosen: list[str] = []
    for column in columns:
        top, _, nested = column.partition(".")
        paths = [p for p in stored if p.split(".")[0] == top and (not nested or nested in p.split(".")[3:4])]
        if not paths:
            names = LABELS.names + [f"instances.{field.name}" for field in INSTANCE]
            raise UsageError(f"no column {column!r} in a label table; there are: {', '.join(names)}")
        chosen += paths
    return chosen


def _parquet_files(folder: str) -> list[str]:
    return [found.uri for found in storage.list_objects(folder, recursive=False) if found.uri.endswith(".parquet")]


def _matches(pattern: str) -> list[str]:
    filesystem, path = storage.open_filesystem(pattern)
    return sorted(filesystem.unstrip_protocol(found) for found in filesystem.glob(path))
