"""From detections to rows of the label table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs.labelling.unit import UnitImage
from jobs.schema import INSTANCE, LABELS

if TYPE_CHECKING:
    from yolact.predictor import Detections


def label_rows(
    images: Sequence[UnitImage], detections: Sequence[Detections | None], class_names: Sequence[str]
) -> pa.Table:
    """One row per image in the order given; `detections[i]` is None where image i has no pixels.

    Every table has exactly the schema `LABELS`, also when no image has an instance.
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
    boxes = np.concatenate([_xywh(d) for d in detections] or [np.zeros((0, 4), np.float32)])
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


def _xywh(detections: Detections) -> np.ndarray:
    """COCO's x, y, width, height, (N, 4) float32, of the detections' xyxy boxes."""
    boxes = np.asarray(detections.boxes, np.float32)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
