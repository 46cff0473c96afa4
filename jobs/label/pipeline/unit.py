"""One unit on its way through the pipeline: the row that carries its pixels, and the record of its commit.

A decode task sends one row a unit. The row carries all pixels in one uint8 buffer. So the pixels are copied only twice:
into the object store and out of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs.table.schema import INSTANCE, LABELS, STATUS_OK
from yolact.images.prepare import PreparedImage

if TYPE_CHECKING:
    from yolact.inference.predictor import Detections

_IMAGE = pa.struct(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("pixels", pa.large_binary()),
    ]
)
_UNIT = pa.schema([("unit", pa.int64()), ("images", pa.list_(_IMAGE)), ("record", pa.string())])


@dataclass(frozen=True)
class UnitImage:
    """One image of a unit. If `status` is "ok", `prepared` holds its pixels; otherwise `error` says why it has none."""

    image_id: str
    uri: str
    status: str
    error: str | None
    prepared: PreparedImage | None


@dataclass
class UnitRecord:
    """What a worker reports to the driver about a unit. The unit is committed if `problem` is None.

    `problem` is one line. `unreachable` is True if the store did not answer (run again), False if the work failed.
    `inputs` is how often the network runs for the unit's images, once for each tile. `seconds` has the time of each
    stage, `retries` the retries by reason, `failures` the failed images by status.
    """

    unit: int
    images: int = 0
    inputs: int = 0
    instances: int = 0
    problem: str | None = None
    unreachable: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> UnitRecord:
        return cls(**json.loads(text))


def pack_unit(record: UnitRecord, images: Sequence[UnitImage]) -> pa.Table:
    """One row holding the unit's images; the pixels are copied once, into one buffer."""
    prepared = [image.prepared for image in images]
    sizes = [0 if p is None else p.pixels.size for p in prepared]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    buffer = np.empty(offsets[-1], np.uint8)
    for p, start, end in zip(prepared, offsets[:-1], offsets[1:], strict=True):
        if p is not None:
            buffer[start:end] = p.pixels.reshape(-1)
    pixels = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(images), [None, pa.py_buffer(offsets), pa.py_buffer(buffer)]
    )
    fields = [
        pa.array([image.image_id for image in images], pa.string()),
        pa.array([image.uri for image in images], pa.string()),
        pa.array([image.status for image in images], pa.string()),
        pa.array([image.error for image in images], pa.string()),
        pa.array([p and p.height for p in prepared], pa.int32()),
        pa.array([p and p.width for p in prepared], pa.int32()),
        pa.array([p and p.pixels.shape[0] for p in prepared], pa.int32()),
        pa.array([p and p.pixels.shape[1] for p in prepared], pa.int32()),
        pixels,
    ]
    struct = pa.StructArray.from_arrays(fields, fields=list(_IMAGE))
    column = pa.ListArray.from_arrays(pa.array([0, len(images)], pa.int32()), struct, type=pa.list_(_IMAGE))
    return pa.table([pa.array([record.unit], pa.int64()), column, pa.array([record.to_json()])], schema=_UNIT)


def unpack_record(row: pa.Table) -> UnitRecord:
    """The record in a row of `pack_unit`."""
    return UnitRecord.from_json(row["record"][0].as_py())


def unpack_images(row: pa.Table) -> list[UnitImage]:
    """The images in a row of `pack_unit`. The pixels are copied, as torch takes no read-only arrays (0.1 ms each)."""
    struct = row["images"].combine_chunks().flatten()
    ids, uris, states, errors, heights, widths, rows, columns = (
        struct.field(name).to_pylist()
        for name in ("image_id", "uri", "status", "error", "height", "width", "rows", "columns")
    )
    pixels = struct.field("pixels")
    images = []
    for i in range(len(struct)):
        prepared = None
        if states[i] == STATUS_OK:
            flat = np.frombuffer(pixels[i].as_buffer(), np.uint8).copy()
            prepared = PreparedImage(flat.reshape(rows[i], columns[i], 3), heights[i], widths[i])
        images.append(UnitImage(ids[i], uris[i], states[i], errors[i], prepared))
    return images


def label_rows(
    images: Sequence[UnitImage], detections: Sequence[Detections | None], class_names: Sequence[str]
) -> pa.Table:
    """One row for each image, in the given order. `detections[i]` is None if image i has no pixels.

    Every table has exactly the schema `LABELS`, even if no image has an instance.
    """
    found = [d for d in detections if d is not None]
    counts = [0 if d is None else len(d.scores) for d in detections]
    sizes = [(None, None) if d is None else (d.height, d.width) for d in detections]
    instances = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()),
        _instances(found, class_names),
        type=pa.list_(INSTANCE),
    )
    columns = [
        pa.array([image.image_id for image in images], pa.string()),
        pa.array([image.uri for image in images], pa.string()),
        pa.array([image.status for image in images], pa.string()),
        pa.array([image.error for image in images], pa.string()),
        pa.array([height for height, _ in sizes], pa.int32()),
        pa.array([width for _, width in sizes], pa.int32()),
        instances,
    ]
    return pa.table(columns, schema=LABELS)


def _instances(detections: Sequence[Detections], class_names: Sequence[str]) -> pa.StructArray:
    labels = [int(label) for d in detections for label in d.labels]
    boxes = np.concatenate([d.boxes_xywh for d in detections] or [np.zeros((0, 4), np.float32)])
    scores = np.concatenate([d.scores for d in detections] or [np.zeros(0, np.float32)])
    mask_scores = [
        None if d.mask_scores is None else float(d.mask_scores[i]) for d in detections for i in range(len(d.scores))
    ]
    areas = np.concatenate([d.areas for d in detections] or [np.zeros(0, np.int32)])
    counts = [rle["counts"] for d in detections for rle in d.masks]
    fields = [
        pa.array(labels, pa.int32()),
        pa.array([class_names[label] for label in labels], pa.string()),
        pa.array(scores, pa.float32()),
        pa.array(mask_scores, pa.float32()),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.astype(np.float32).reshape(-1)), 4),
        pa.array(areas.astype(np.int32)),
        pa.array(counts, pa.binary()),
    ]
    return pa.StructArray.from_arrays(fields, fields=list(INSTANCE))
