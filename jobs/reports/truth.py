"""Ground truth beside the labels: which detections are wrong, which objects were missed, and the AP of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jobs import storage
from jobs.errors import UsageError
from jobs.exports.coco import CocoIds
from jobs.read_labels import Instance, LabelRow
from yolact.coco import (
    AnnotatedImage,
    AnnotatedImages,
    annotation_rle,
    coco_json,
    find_problems,
    parse_coco,
    without_problems,
)
from yolact.evaluation import CocoScores, DetectedInstance, evaluate_instances

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
    """A COCO file whose pictures are found by the names of the table's ids."""

    images: AnnotatedImages
    document: dict[str, Any]
    ids: CocoIds

    @cached_property
    def _by_id(self) -> dict[Any, AnnotatedImage]:
        return {image.image_id: image for image in self.images.images}

    def of(self, relative: str) -> PictureTruth | None:
        """By the path below the lake's root, else by the file's own name; None for a picture it does not have."""
        image_id = self.ids.image(relative)
        image = self._by_id.get(image_id)
        if image is None:
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

    def detections(self, row: LabelRow, relative: str) -> list[DetectedInstance]:
        """The row's instances under this file's ids; none for a picture or class that it does not have."""
        image_id = self.ids.image(relative)
        if image_id is None:
            return []
        return [
            DetectedInstance(image_id, self.ids.categories[i.category], i.score, i.mask_score, i.bbox, i.rle)
            for i in row.instances
            if i.category in self.ids.categories
        ]

    def score(self, detections: Sequence[DetectedInstance]) -> Mapping[str, CocoScores]:
        return evaluate_instances(self.document, detections)


def read_truth(uri: str) -> GroundTruth:
    """Raises `UsageError` for a file that is not COCO's; annotations that nothing could use are left out."""
    try:
        images = parse_coco(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UsageError(str(error)) from None
    images = without_problems(images, find_problems(images))
    document = coco_json(images)
    return GroundTruth(images, document, CocoIds.of(document, uri))


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
