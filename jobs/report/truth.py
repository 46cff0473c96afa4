"""Compares labels with a ground truth: which detections are wrong, which objects are missed, and the AP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jobs.table.ground_truth import ImageFinder, match_labels, read_coco, settle_problems, tell_notes
from jobs.table.read import Instance, LabelRow
from yolact.coco.annotations import AnnotatedImages, annotation_rle, coco_json
from yolact.coco.checks import find_problems
from yolact.coco.evaluation import CocoScores, evaluate_and_match
from yolact.coco.quality import Quality, measure_quality

#: a detection is right if its mask has this IoU with the mask of an object of its class
RIGHT_IOU = 0.5


@dataclass(frozen=True)
class TrueObject:
    """One annotated object: its class, mask (COCO RLE) and box (x, y, width, height). Crowds never count as missed."""

    name: str
    rle: dict[str, Any]
    box: list[float]
    is_crowd: bool


@dataclass(frozen=True)
class ImageTruth:
    """The objects of one image."""

    objects: tuple[TrueObject, ...]


@dataclass(frozen=True)
class Match:
    """The mistakes in one image: indices of wrong detections, and of objects without a detection."""

    false_positives: frozenset[int]
    missed: tuple[int, ...]


@dataclass(frozen=True)
class GroundTruth:
    """A COCO file whose images are found by file name, as `yolact evaluate` finds them."""

    images: AnnotatedImages
    left_out: int = 0
    """annotations and images of the file that cannot be used"""

    @cached_property
    def find(self) -> ImageFinder:
        return ImageFinder(self.images)

    def of(self, row: LabelRow) -> ImageTruth | None:
        """The objects in a row's image; None where the file lacks the image or gives it another size."""
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
        return ImageTruth(tuple(objects))

    def score(self, rows: Iterable[LabelRow]) -> Scores:
        """The AP and the curves of the rows. Rows of images without ground truth need not be in `rows`."""
        matched = match_labels(rows, self.images)
        coverage = list(matched.counts.lines())
        if self.left_out:
            coverage.append(f"{self.left_out} broken annotations or images of the ground truth are left out")
        content = coco_json(self.images)
        evaluation = evaluate_and_match(content, matched.detections)
        quality = measure_quality(content, matched.detections, evaluation)
        return Scores(evaluation.scores, tuple(coverage), quality)


@dataclass(frozen=True)
class Scores:
    """The AP of masks and of boxes ("mask", "box"). `coverage` says in words what was compared and what was not."""

    by_kind: Mapping[str, CocoScores]
    coverage: tuple[str, ...]
    quality: Quality
    """curves, confusions and calibration of the masks"""


def read_truth(uri: str) -> GroundTruth:
    """Read a ground truth. Broken annotations and images are left out, printed on stderr and counted on the page.

    Raises:
        UsageError: if there is no such file, or if it is not COCO's.
    """
    images = read_coco(uri)
    tell_notes(images, "the ground truth")
    problems = find_problems(images)
    return GroundTruth(settle_problems(images, problems, "the ground truth", skip_broken=True), len(problems))


def match_instances(instances: Sequence[Instance], truth: ImageTruth) -> Match:
    """Match detections and objects as COCO does, at mask IoU 0.5.

    Detections choose in the order of their scores, and each takes the free object with the largest IoU. A detection
    that lies within a crowd of its class is neither right nor wrong.
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
