"""Policies: which classes of the labels are wanted, under which names, and from which score and area on.

`jobs.table.policy_file` reads them from files. They are applied here and nowhere else: to rows of a label table, and to
the categories of annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from yolact.coco.annotations import AnnotatedImage, AnnotatedImages

#: the columns that decide which instances are taken
DECIDING_COLUMNS = ("instances.category", "instances.score", "instances.area")


@dataclass(frozen=True)
class ClassRule:
    """What becomes of one class that is kept."""

    source: str
    """its name in the model or table"""
    name: str
    """its new name; classes that are merged have the same"""
    score_threshold: float | None
    """instances that score no more than this are left out; None takes all"""
    min_area: int
    """instances with fewer pixels are left out"""


@dataclass(frozen=True)
class Policy:
    """A policy for these classes. `rules` has the classes that are kept, in the order of `known`.

    `keeps_others` says whether categories of a ground truth that are not in `known` stay.
    """

    known: tuple[str, ...]
    rules: tuple[ClassRule, ...]
    keeps_others: bool = True

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes of what the policy gives: the new label of an instance is a position in it."""
        return tuple(dict.fromkeys(rule.name for rule in self.rules))

    def to_json(self) -> list[dict[str, Any]]:
        """The rules as JSON values. Two files that mean the same give the same."""
        return [dict(vars(rule)) for rule in self.rules]

    def class_thresholds(self) -> tuple[float, ...]:
        """For each of `known` the score that an instance must exceed; infinite for a class that is dropped."""
        found = {rule.source: rule.score_threshold or 0.0 for rule in self.rules}
        return tuple(found.get(name, float("inf")) for name in self.known)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows, each with the instances that the policy takes, under their new labels and categories.

        `batch` needs `DECIDING_COLUMNS`; other fields of the instances may be there or not.
        """
        place = batch.schema.get_field_index("instances")
        column = batch.column(place)
        nulls = column.is_null().to_numpy(zero_copy_only=False)
        counts = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
        found = column.flatten()
        rule = pc.index_in(found.field("category"), value_set=pa.array([r.source for r in self.rules], pa.string()))
        rule = rule.fill_null(-1).to_numpy(zero_copy_only=False)
        taken = self._takes(rule, found.field("score").to_numpy(), found.field("area").to_numpy())
        row = np.repeat(np.arange(len(counts)), counts)[taken]
        ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(counts)))])
        instances = self._renamed(found.filter(pa.array(taken)), rule[taken])
        lists = pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), instances, type=column.type, mask=pa.array(nulls) if nulls.any() else None
        )
        return batch.set_column(place, batch.schema.field(place), lists)

    def apply_to_table(self, table: pa.Table) -> pa.Table:
        """As `apply`, for a table in memory."""
        return pa.Table.from_batches([self.apply(batch) for batch in table.to_batches()], schema=table.schema)

    def _takes(self, rule: np.ndarray, scores: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """(N,) bool. Scores are compared as float32, as the model's own threshold is."""
        # the last place is that of rule -1, the classes that are dropped
        thresholds = [-1.0 if r.score_threshold is None else r.score_threshold for r in self.rules] + [np.inf]
        least = [r.min_area for r in self.rules] + [0]
        return (scores > np.array(thresholds, np.float32)[rule]) & (areas >= np.array(least, np.int64)[rule])

    def _renamed(self, instances: pa.StructArray, rule: np.ndarray) -> pa.StructArray:
        names = pa.array([r.name for r in self.rules], pa.string())
        labels = np.array([self.class_names.index(r.name) for r in self.rules], np.int32)
        new = {"label": pa.array(labels[rule], pa.int32()), "category": names.take(pa.array(rule))}
        fields = list(instances.type)
        return pa.StructArray.from_arrays([new.get(f.name, instances.field(f.name)) for f in fields], fields=fields)

    def name_of_truth(self, category: str) -> str | None:
        """The new name of a category of a ground truth; None where it is dropped.

        A ground truth may have the new names already, and classes that the model does not know.
        """
        if category in self.known:
            return next((rule.name for rule in self.rules if rule.source == category), None)
        return category if self.keeps_others or category in self.class_names else None

    def of_truth(self, data: AnnotatedImages) -> AnnotatedImages:
        """Annotated images with their classes as the policy has them; thresholds and areas are of labels alone.

        Merged categories have the id of the first of them.
        """
        names = {number: self.name_of_truth(name) for number, name in data.categories.items()}
        ids: dict[str, int] = {}
        for number, name in names.items():
            if name is not None:
                ids.setdefault(name, number)
        new_ids = {number: ids[name] for number, name in names.items() if name is not None}
        images = tuple(_with_ids(image, names.keys() - new_ids.keys(), new_ids) for image in data.images)
        return replace(data, images=images, categories={number: name for name, number in ids.items()})


def _with_ids(image: AnnotatedImage, dropped: Iterable[int], new_ids: Mapping[int, int]) -> AnnotatedImage:
    gone = set(dropped)
    kept = [a for a in image.annotations if a.category_id not in gone]
    # a category that the file does not list is a fault that is found later
    return replace(
        image, annotations=tuple(replace(a, category_id=new_ids.get(a.category_id, a.category_id)) for a in kept)
    )
