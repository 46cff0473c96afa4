"""The review queue: finds the images whose labels are most likely wrong, so that a reviewer looks at them first.

The worry of an image is a weighted sum of five values from 0 to 1:

- doubt: how far its lowest score is below 0.5
- overlaps: pairs of boxes with IoU above 0.6; five or more count 1
- size: how far an instance's size is from the median of its class; six spreads or more count 1
- border: the share of instances cut by the image's edge
- full: 1 if it has as many instances as the run allowed
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.report.statistics import size_log2
from jobs.table.read import flatten_instances
from jobs.table.schema import STATUS_OK

WEIGHTS = {"doubt": 1.0, "overlaps": 1.0, "size": 1.0, "border": 0.3, "full": 0.5}
_OVERLAP_IOU = 0.6
_SPREADS = 6.0
_NAMED_SPREADS = 3.5
_DOUBT_BELOW = 0.5


@dataclass(frozen=True, order=True)
class Suspect:
    """An image and its worry. Ordered by worry, then by place in the table, so that the order is always the same."""

    worry: float
    piece: int
    row: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The instances of one image as columns; `boxes` are (n, 4) x, y, width, height in its pixels."""

    boxes: np.ndarray
    labels: np.ndarray
    names: list[str]
    scores: np.ndarray
    areas: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Reviewer:
    """Judges images. `sizes` is `Numbers.size_medians()`; `max_detections` is the run's limit, None if not known."""

    sizes: Mapping[int, tuple[float, float]]
    max_detections: int | None

    def judge_batch(self, batch: pa.RecordBatch, piece: int, first_row: int) -> Iterator[Suspect]:
        """The rows of a batch with NUMBER_COLUMNS whose worry is above 0."""
        ends, instances = flatten_instances(batch)
        boxes = instances.field("bbox").flatten().to_numpy().reshape(-1, 4)
        labels, scores, areas = (instances.field(name).to_numpy() for name in ("label", "score", "area"))
        names = instances.field("category").to_pylist()
        columns = (batch[name].to_pylist() for name in ("status", "height", "width"))
        for row, (status, height, width) in enumerate(zip(*columns, strict=True)):
            mine = slice(ends[row], ends[row + 1])
            if status == STATUS_OK and ends[row] < ends[row + 1]:
                found = Found(boxes[mine], labels[mine], names[mine], scores[mine], areas[mine], height, width)
                worry, reasons = self.judge(found)
                if worry > 0:
                    yield Suspect(round(worry, 4), piece, first_row + row, reasons)

    def judge(self, found: Found) -> tuple[float, tuple[str, ...]]:
        """The worry and its reasons in words, the largest first. `found` must have at least one instance."""
        parts: dict[str, tuple[float, str]] = {}
        lowest = float(found.scores.min())
        if lowest < _DOUBT_BELOW:
            parts["doubt"] = (1 - lowest / _DOUBT_BELOW, f"score as low as {lowest:.2f}")
        pairs = overlapping_pairs(found.boxes)
        if pairs:
            parts["overlaps"] = (min(pairs / 5, 1), f"{pairs} overlapping pair{'s' * (pairs > 1)}")
        spreads, odd = self._oddest(found)
        if abs(spreads) > _NAMED_SPREADS:
            words = "large" if spreads > 0 else "small"
            parts["size"] = (min(abs(spreads) / _SPREADS, 1), f"unusually {words} {found.names[odd]}")
        cut = touching_border(found.boxes, found.height, found.width)
        if cut:
            parts["border"] = (cut / len(found.boxes), f"{cut} cut by the edge")
        if self.max_detections is not None and len(found.boxes) >= self.max_detections:
            parts["full"] = (1.0, f"list is full at {self.max_detections}")
        worry = sum(WEIGHTS[name] * value for name, (value, _) in parts.items())
        ordered = sorted(parts, key=lambda name: -WEIGHTS[name] * parts[name][0])
        return worry, tuple(parts[name][1] for name in ordered)

    def _oddest(self, found: Found) -> tuple[float, int]:
        """The instance whose size is farthest from the median of its class: (signed distance in spreads, index)."""
        sizes = size_log2(found.areas, np.full(len(found.areas), found.height * found.width))
        usual = [self.sizes.get(label, (size, 1.0)) for label, size in zip(found.labels.tolist(), sizes, strict=True)]
        spreads = np.array([(size - median) / spread for size, (median, spread) in zip(sizes, usual, strict=True)])
        odd = int(np.abs(spreads).argmax())
        return float(spreads[odd]), odd


def worst(suspects: Iterable[Suspect], most: int) -> list[Suspect]:
    """The most worrying, worst first."""
    return heapq.nlargest(most, suspects)


def overlapping_pairs(boxes: np.ndarray) -> int:
    """Pairs of boxes (n, 4) x, y, width, height with IoU above 0.6."""
    low, high = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    sides = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    shared = sides.clip(0).prod(axis=2)
    areas = boxes[:, 2] * boxes[:, 3]
    union = areas[:, None] + areas[None] - shared
    return int((np.triu(shared > _OVERLAP_IOU * union, 1) & (union > 0)).sum())


def touching_border(boxes: np.ndarray, height: int, width: int) -> int:
    """Boxes that reach within a pixel of the image's edge."""
    near = (boxes[:, :2] <= 1).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] >= np.array([width, height]) - 1).any(axis=1)
    return int(near.sum())
