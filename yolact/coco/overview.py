"""Counts what a data set holds: objects per class, and boxes that do not fit their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_tools

from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, Annotation, annotation_rle

#: a box fits its mask if it overlaps the mask's own box by this IoU
FITTING_IOU = 0.5


@dataclass(frozen=True)
class ClassCounts:
    """One class of a data set."""

    name: str
    objects: int
    crowds: int
    images: int
    """images with an object of the class"""


@dataclass(frozen=True)
class BoxFit:
    """Boxes of a data set against its masks."""

    objects: int
    empty_masks: tuple[Annotation, ...]
    """masks without a pixel, mostly polygons smaller than one"""
    misfits: tuple[Annotation, ...]
    """objects whose box overlaps the box of the mask by an IoU below `FITTING_IOU`"""
    fit_as_corners: int
    """misfits that would fit if their box were x1, y1, x2, y2"""


def count_classes(data: AnnotatedImages) -> tuple[ClassCounts, ...]:
    """Objects, crowd regions and images of every class, in the order of the labels."""
    labels = data.label_of_category
    objects, crowds, images = (np.zeros(len(labels), np.int64) for _ in range(3))
    for image in data.images:
        present = set()
        for annotation in image.annotations:
            label = labels[annotation.category_id]
            if annotation.is_crowd:
                crowds[label] += 1
            else:
                objects[label] += 1
                present.add(label)
        images[list(present)] += 1
    counted = zip(data.class_names, objects.tolist(), crowds.tolist(), images.tolist(), strict=True)
    return tuple(ClassCounts(*counts) for counts in counted)


def fit_boxes(data: AnnotatedImages) -> BoxFit:
    """Compare every object's box with its mask. Crowds are left out. Every mask is drawn for it."""
    empty: list[Annotation] = []
    misfits: list[Annotation] = []
    objects = fit_as_corners = 0
    for image in data.images:
        annotations = [annotation for annotation in image.annotations if not annotation.is_crowd]
        objects += len(annotations)
        for annotation, drawn in zip(annotations, _mask_boxes(annotations, image), strict=True):
            if not drawn[2:].all():
                empty.append(annotation)
            elif _iou(np.asarray(annotation.bbox, np.float64), drawn) < FITTING_IOU:
                misfits.append(annotation)
                x1, y1, x2, y2 = annotation.bbox
                fit_as_corners += _iou(np.array([x1, y1, x2 - x1, y2 - y1]), drawn) >= FITTING_IOU
    return BoxFit(objects, tuple(empty), tuple(misfits), int(fit_as_corners))


def _mask_boxes(annotations: Sequence[Annotation], image: AnnotatedImage) -> np.ndarray:
    """(G, 4) float64 x, y, width, height of masks; zeros for a mask without pixels."""
    if not annotations:
        return np.zeros((0, 4))
    boxes = rle_tools.toBbox([annotation_rle(annotation, image) for annotation in annotations])
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes x, y, width, height; 0 where one has no area."""
    if one[2:].min() <= 0 or other[2:].min() <= 0:
        return 0.0
    sides = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    overlap = float(np.prod(sides.clip(0)))
    return overlap / (float(np.prod(one[2:]) + np.prod(other[2:])) - overlap)
