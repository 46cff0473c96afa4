"""Ground truth beside the labels: which detections are wrong, which objects were missed, and the AP of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import ImageFinder, match_labels
from jobs.table.read import Instance, LabelRow
from yolact.coco.annotations import (
    AnnotatedImages,
    annotation_rle,
    coco_json,
    find_problems,
    parse_coco,
    without_problems,
)
from yolact.coco.evaluation import CocoScores, evaluate_instances

#: a detection is right if a mask of its class overlaps it by this IoU
RIGHT_IOU = 0.5


@dataclass(frozen=True)
class TrueObject:
    """One annotated object: its class, mask (COCO RLE), x, y, width, height; a crowd is never counted as missed."""

    name: str
    rle: dict[str, Any]
    box: list[float]
    is_crowd: bool


@dataclass(frozen=True)
class PictureTruth:
    """The objects of one picture."""

    objects: tuple[TrueObject, ...]


@dataclass(frozen=True)
class Match:
    """Of one picture: indices of wrong detections, and of objects without a detection."""

    false_positives: frozenset[int]
    missed: tuple[int, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A COCO file whose pictures are found by file name, as `yolact evaluate` finds them."""

    images: AnnotatedImages

    @cached_property
    def find(self) -> ImageFinder:
        return ImageFinder(self.images)

    def of(self, row: LabelRow) -> PictureTruth | None:
        """What is truly in a row's picture; None for one that the file does not have, or not in this size."""
        image = self.find(row)
        if image is None or (image.height, image.width) != (row.height, row.width):
            return None
        objects = (
            TrueObject(
                self.images.categories[annotation.category_id],
                annotation_rle(annotation, image),
                [float(value) for value in annotation.bbox],
                annotation.is_crowd,
            )
            for annotation in image.annotations
        )
        return PictureTruth(tuple(objects))

    def score(self, rows: Iterable[LabelRow]) -> Scores:
        """The AP of all rows, of which those of other pictures may have been left out."""
        matched = match_labels(rows, self.images)
        return Scores(evaluate_instances(coco_json(self.images), matched.detections), tuple(matched.counts.lines()))


@dataclass(frozen=True)
class Scores:
    """AP of masks and boxes ("mask", "box"), and in words what was compared and what could not be."""

    by_kind: Mapping[str, CocoScores]
    coverage: tuple[str, ...]


def read_truth(uri: str) -> GroundTruth:
    """Raises `UsageError` for a file that is not COCO's; annotations that nothing could use are left out."""
    try:
        images = parse_coco(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except storage.ObjectMissingError:
        raise UsageError(f"--ground-truth {uri}: there is no such file") from None
    return GroundTruth(without_problems(images, find_problems(images)))


def match_instances(instances: Sequence[Instance], truth: PictureTruth) -> Match:
    """COCO's greedy matching at mask IoU 0.5: the best-scored detection first takes the object it overlaps most.

    A detection of a crowd's class that lies within the crowd is neither right nor wrong.
    """
    objects = truth.objects
    if not instances or not objects:
        missed = tuple(i for i, found in enumerate(objects) if not found.is_crowd)
        return Match(frozenset(i.index for i in instances), missed)
    crowd = [int(found.is_crowd) for found in objects]
    ious = np.asarray(coco_mask.iou([i.rle for i in instances], [found.rle for found in objects], crowd))
    taken: set[int] = set()
    wrong: set[int] = set()
    for position, instance in enumerate(instances):
        fits = [
            (ious[position, i], i)
            for i, found in enumerate(objects)
            if found.name == instance.category and ious[position, i] >= RIGHT_IOU and i not in taken
        ]
        own = [fit for fit in fits if not objects[fit[1]].is_crowd]
        if own:
            taken.add(max(own)[1])
        elif not fits:
            wrong.add(instance.index)
    missed = tuple(i for i, found in enumerate(objects) if not found.is_crowd and i not in taken)
    return Match(frozenset(wrong), missed)
