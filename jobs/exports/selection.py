"""Which instances of a label table an export takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from jobs.read_labels import LabelRow, flatten_instances, rows_of_batch

#: the parts of a table that decide what is taken; masks are by far the larger rest
DECIDING_COLUMNS = ("instances.category", "instances.score", "instances.area")


@dataclass(frozen=True)
class Selection:
    """Bounds are inclusive; `categories` is empty for all; areas are in pixels of the mask."""

    min_score: float = 0.0
    categories: frozenset[str] = frozenset()
    min_area: int = 1
    max_area: int | None = None

    def takes(self, category: str, score: float, area: int) -> bool:
        return (
            score >= self.min_score
            and (not self.categories or category in self.categories)
            and area >= self.min_area
            and (self.max_area is None or area <= self.max_area)
        )

    def rows(self, batch: pa.RecordBatch) -> Iterator[LabelRow]:
        """The pictures of a batch that have labels, each with the instances that are taken, possibly none."""
        for row in rows_of_batch(batch):
            if row.ok:
                taken = tuple(i for i in row.instances if self.takes(i.category, i.score, i.area))
                yield replace(row, instances=taken)

    def count(self, batch: pa.RecordBatch) -> int:
        """How many instances of a batch are taken; it needs `DECIDING_COLUMNS` only."""
        _, found = flatten_instances(batch)
        columns = (found.field(name).to_pylist() for name in ("category", "score", "area"))
        return sum(self.takes(*values) for values in zip(*columns, strict=True))
