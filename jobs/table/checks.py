"""What a row of a label table must hold before anything works with it. A file may be edited or damaged after its run.

Values are checked as batches of rows are read; a mask when it is asked for, since most commands need few of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.errors import UsageError
from jobs.table.schema import STATUS_OK

#: columns that have a value in every row, and fields that have one in every instance
_ROW_VALUES = ("image_id", "uri", "status")
_INSTANCE_VALUES = ("label", "category", "score", "bbox", "area")
#: a label is a position among the classes of a model; training makes one output for each
MAX_LABEL = 65_535


def check_batch(batch: pa.RecordBatch, first_row: int, uri: str) -> None:
    """Raise `UsageError` for the first value of a batch that no label job writes.

    Args:
        batch: rows of `LABELS`; columns, and fields of the instances, may be missing.
        first_row: number of its first row, for the message where the batch has no ids.
        uri: of the file.
    """
    for row, what in _faults(batch):
        named = batch["image_id"][row].as_py() if "image_id" in batch.schema.names else None
        where = f"row {first_row + row} of {uri}" if named is None else f"the row of {named} in {uri}"
        raise UsageError(f"{where} has {what}: the label table is damaged")


def _faults(batch: pa.RecordBatch) -> Iterator[tuple[int, str]]:
    """(row within the batch, what it has) for the first fault of each kind."""
    names = batch.schema.names
    for name in _ROW_VALUES:
        if name in names:
            yield from _first(np.asarray(batch[name].is_null()), f"no {name}")
    if "status" in names:
        ok = np.asarray(pc.fill_null(pc.equal(batch["status"], STATUS_OK), False))
        for name in ("height", "width"):
            if name in names:
                size = np.asarray(pc.fill_null(batch[name], 0))
                yield from _first(ok & (size < 1), f"status ok and a {name} that is not above 0")
    if "instances" in names:
        yield from _instance_faults(batch["instances"])


def _instance_faults(column: pa.ListArray) -> Iterator[tuple[int, str]]:
    lengths = np.asarray(pc.fill_null(column.value_lengths(), 0))
    rows = np.repeat(np.arange(len(column)), lengths)
    instances = column.flatten()
    # flatten() of structs gives a field the nulls of its struct too
    fields = dict(zip((field.name for field in instances.type), instances.flatten(), strict=True))
    for name in _INSTANCE_VALUES:
        if name in fields:
            yield from _first(np.asarray(fields[name].is_null()), f"an instance without {name}", rows)
    if "label" in fields:
        labels = np.asarray(pc.fill_null(fields["label"], 0))
        yield from _first((labels < 0) | (labels > MAX_LABEL), f"a label that is not from 0 to {MAX_LABEL}", rows)
    if "area" in fields:
        yield from _first(np.asarray(pc.fill_null(fields["area"], 0)) < 0, "an instance with an area below 0", rows)
    if "score" in fields:
        yield from _first(_no_share(fields["score"]), "a score that is not from 0 to 1", rows)
    if "mask_score" in fields:
        present = pc.fill_null(fields["mask_score"], 0)
        yield from _first(~np.isfinite(np.asarray(present)), "a mask score that is not a finite number", rows)
    if "bbox" in fields:
        boxes = np.asarray(pc.fill_null(fields["bbox"].flatten(), np.nan)).reshape(-1, 4)
        finite = np.isfinite(boxes).all(axis=1) if len(boxes) == len(rows) else np.ones(len(rows), bool)
        yield from _first(~finite, "a box that is not four finite numbers", rows)


def _no_share(values: pa.Array) -> np.ndarray:
    numbers = np.asarray(pc.fill_null(values, 0))
    return ~((numbers >= 0) & (numbers <= 1))


def _first(bad: np.ndarray, what: str, rows: np.ndarray | None = None) -> Iterator[tuple[int, str]]:
    """The row of the first of `bad`; `rows` gives the row of each, None where each is a row."""
    if bad.any():
        place = int(bad.argmax())
        yield (place if rows is None else int(rows[place])), what
