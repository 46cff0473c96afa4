"""Which class is taken for which: a confusion matrix of masks, with the background as a class of its own.

Average precision matches detections within their class only. Here a detection may also take an object of another class.
Pairs of the same class come first, then those of two classes; among equals the largest IoU comes first. A detection and
an object are each in one pair at most. What is left is background.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from yolact.coco.evaluation import DetectedInstance

#: the name of the last row and of the last column
BACKGROUND = "background"


@dataclass(frozen=True)
class Confusion:
    """Counts of (object's class, detection's class). The last row is detections without an object, the last column
    objects without a detection.
    """

    names: tuple[str, ...]
    """C class names in the order of their ids"""
    counts: np.ndarray
    """(C + 1, C + 1) int64"""
    score: float
    """detections with this score or a higher one count"""
    iou: float

    def pairs(self) -> list[tuple[str, str, int]]:
        """(object's class, detection's class, count) of two different classes, the most frequent first."""
        names = (*self.names, BACKGROUND)
        found = [
            (names[truth], names[detected], int(self.counts[truth, detected]))
            for truth, detected in zip(*np.nonzero(self.counts), strict=True)
            if truth != detected
        ]
        return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def confusion_matrix(
    ground_truth: Mapping[str, Any], detections: Sequence[DetectedInstance], score: float, iou: float = 0.5
) -> Confusion:
    """Count the pairs of objects and detections.

    Args:
        ground_truth: COCO instances object with masks as RLE. A detection without an object that lies in a crowd region
            of its class is not counted; a crowd region is never an object.
        detections: of images and categories of the ground truth. All count, without a limit for an image.
        score: least score of a detection.
        iou: least IoU of two masks that make a pair.
    """
    categories = sorted(ground_truth["categories"], key=lambda category: category["id"])
    row_of = {category["id"]: row for row, category in enumerate(categories)}
    background = len(categories)
    counts = np.zeros((background + 1, background + 1), np.int64)
    objects: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    found: dict[Any, list[DetectedInstance]] = defaultdict(list)
    for entry in ground_truth["annotations"]:
        objects[entry["image_id"]].append(entry)
    for detection in detections:
        if detection.score >= score:
            found[detection.image_id].append(detection)
    for image in objects.keys() | found.keys():
        for truth, detected in _pairs_of_image(objects[image], found[image], row_of, iou):
            counts[truth, detected] += 1
    return Confusion(tuple(category["name"] for category in categories), counts, score, iou)


def _pairs_of_image(
    entries: Sequence[Mapping[str, Any]], found: Sequence[DetectedInstance], row_of: Mapping[int, int], iou: float
) -> list[tuple[int, int]]:
    """(row, column) of everything that one image adds to the matrix."""
    background = len(row_of)
    objects = [entry for entry in entries if not entry["iscrowd"]]
    crowds = [entry for entry in entries if entry["iscrowd"]]
    rows = np.array([row_of[entry["category_id"]] for entry in objects], int)
    columns = np.array([row_of[detection.category_id] for detection in found], int)
    free, unused = set(range(len(objects))), set(range(len(found)))
    pairs: list[tuple[int, int]] = []
    if objects and found:
        ious = _ious(found, objects)
        close_detections, close_objects = np.nonzero(ious >= iou)
        other = rows[close_objects] != columns[close_detections]
        for place in np.lexsort((-ious[close_detections, close_objects], other)):
            detection, target = int(close_detections[place]), int(close_objects[place])
            if detection in unused and target in free:
                unused.remove(detection)
                free.remove(target)
                pairs.append((int(rows[target]), int(columns[detection])))
    pairs += [(int(rows[target]), background) for target in sorted(free)]
    in_crowd = np.zeros(len(found), bool)
    if crowds and unused:
        same = columns[:, None] == np.array([row_of[entry["category_id"]] for entry in crowds])
        in_crowd = ((_ious(found, crowds) >= iou) & same).any(axis=1)
    return pairs + [(background, int(columns[detection])) for detection in sorted(unused) if not in_crowd[detection]]


def _ious(found: Sequence[DetectedInstance], entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(detections, objects) float64; with a crowd region it is the share of the detection that lies in the region."""
    masks = [detection.mask for detection in found]
    crowd = [int(entry["iscrowd"]) for entry in entries]
    return np.asarray(rle_tools.iou(masks, [entry["segmentation"] for entry in entries], crowd), np.float64)
