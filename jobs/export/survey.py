"""The first pass of an export: it reads what every worker must know of the whole table before it writes a piece.

Ids count through all pieces, names must not clash, and the classes must be listed. None of this needs the masks, so the
pass reads small columns only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from jobs.export.names import NameFacts
from jobs.runtime.errors import UsageError
from jobs.table.read import LabelRow, LabelTable, Piece, flatten_instances, rows_of_batch
from jobs.table.schema import STATUS_OK


@dataclass(frozen=True)
class PieceFacts:
    """What one piece of the table holds: images with labels, failed images, instances taken, classes by label.

    `empty` counts instances that are left out only because their mask has no pixel.
    """

    images: int
    failed: int
    instances: int
    empty: int
    names: NameFacts
    classes: dict[int, str]


@dataclass(frozen=True)
class TableFacts:
    """`PieceFacts` of the whole table. `starts` is, by piece, how many images and instances stand before it."""

    images: int
    failed: int
    instances: int
    empty: int
    names: NameFacts
    classes: dict[int, str]
    starts: tuple[tuple[int, int], ...] = field(repr=False)


def survey_piece(piece: Piece, selection: Selection) -> PieceFacts:
    """Read the small columns of one piece."""
    images = failed = instances = empty = 0
    names = NameFacts()
    classes: dict[int, str] = {}
    for batch in piece.batches(["image_id", "status", "instances.label", *DECIDING_COLUMNS], batch_rows=8192):
        ok = pc.equal(batch["status"], STATUS_OK)
        good = batch.filter(ok)
        images += good.num_rows
        failed += batch.num_rows - good.num_rows
        instances += selection.count(good)
        empty += selection.count_empty(good)
        names = names.join(NameFacts.of(good["image_id"].to_pylist()))
        _, found = flatten_instances(good)
        labels, categories = found.field("label").to_pylist(), found.field("category").to_pylist()
        _add_classes(classes, dict(zip(labels, categories, strict=True)))
    return PieceFacts(images, failed, instances, empty, names, classes)


def join_facts(table: LabelTable, pieces: Sequence[PieceFacts], selection: Selection) -> TableFacts:
    """Join the pieces' facts, in table order. Raises `UsageError` where the table lacks a class of the selection."""
    starts = []
    images = instances = 0
    names = NameFacts()
    classes: dict[int, str] = dict(enumerate(table.class_names))
    for piece in pieces:
        starts.append((images, instances))
        images += piece.images
        instances += piece.instances
        names = names.join(piece.names)
        _add_classes(classes, piece.classes)
    unknown = selection.categories - set(classes.values())
    if unknown:
        known = ", ".join(classes[label] for label in sorted(classes)) or "none at all"
        raise UsageError(f"no class {sorted(unknown)[0]!r} in this table; there are: {known}")
    failed = sum(piece.failed for piece in pieces)
    empty = sum(piece.empty for piece in pieces)
    return TableFacts(images, failed, instances, empty, names, dict(sorted(classes.items())), tuple(starts))


def _add_classes(classes: dict[int, str], found: dict[int, str]) -> None:
    for label, category in found.items():
        if classes.setdefault(label, category) != category:
            raise UsageError(
                f"label {label} is {classes[label]!r} in one row and {category!r} in another; "
                "these files are not from one run, export them one run at a time"
            )


#: the columns that decide which instances are taken; the masks, by far the largest column, are not among them
DECIDING_COLUMNS = ("instances.category", "instances.score", "instances.area")


@dataclass(frozen=True)
class Selection:
    """Which instances are taken. Bounds are inclusive, areas are pixels of the mask; empty `categories` take all."""

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
        """Rows of the images with status "ok", each with the instances that are taken, possibly none."""
        for row in rows_of_batch(batch):
            if row.ok:
                taken = tuple(i for i in row.instances if self.takes(i.category, i.score, i.area))
                yield replace(row, instances=taken)

    def count(self, batch: pa.RecordBatch) -> int:
        """How many instances of a batch are taken; it needs `DECIDING_COLUMNS` only."""
        return sum(self.takes(*values) for values in _deciding_values(batch))

    def count_empty(self, batch: pa.RecordBatch) -> int:
        """How many instances are left out only because their mask is empty; it needs `DECIDING_COLUMNS` only."""
        least = self.min_area
        return sum(
            area == 0 and not self.takes(category, score, 0) and self.takes(category, score, least)
            for category, score, area in _deciding_values(batch)
        )


def _deciding_values(batch: pa.RecordBatch) -> Iterator[tuple[str, float, int]]:
    _, found = flatten_instances(batch)
    columns = (found.field(name).to_pylist() for name in ("category", "score", "area"))
    return zip(*columns, strict=True)
