"""Annotated images in COCO's terms: the records, their masks as RLE or arrays, and COCO JSON made from them.

`yolact.coco.reading` makes these records from a file, and `yolact.coco.checks` finds the faults in them. The functions
here expect annotations without faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

#: a polygon with fewer numbers has no area
MIN_POLYGON_NUMBERS = 6


@dataclass(frozen=True)
class Annotation:
    """One object (or crowd region) of an image, as its JSON says."""

    annotation_id: int | str
    category_id: int
    bbox: tuple[float, ...]
    """x, y, width, height in pixels"""
    segmentation: Any
    """list of polygons, or RLE dict with compressed or uncompressed counts"""
    is_crowd: bool = False
    area: float | None = None
    """square pixels as the JSON gives them, which COCO's size classes go by; None: the pixels of the mask"""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and what is known to be in it."""

    image_id: int | str
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class AnnotationProblem:
    """Something wrong in a data set, found before the data set is used."""

    kind: str
    message: str
    """goes on after "annotation … of image …" or "image …" """
    image_id: int | str | None = None
    annotation_id: int | str | None = None
    """None where the whole image is meant"""
    annotation: Annotation | None = field(default=None, compare=False, repr=False)
    """the record to leave out; None where reading made none"""

    def __str__(self) -> str:
        of = "" if self.annotation_id is None else f"annotation {_short(self.annotation_id)} of "
        return f"{of}image {_short(self.image_id)} {self.message}"


@dataclass(frozen=True)
class AnnotatedImages:
    """A data set: its images and its categories, in the order of their ids."""

    images: tuple[AnnotatedImage, ...]
    categories: Mapping[int, str]
    """COCO category id → name; the model's label is the position in this mapping"""
    problems: tuple[AnnotationProblem, ...] = ()
    """entries of the file that could not become records, such as annotations of an image that the file does not list"""
    notes: tuple[str, ...] = ()
    """what the reader corrected or ignored, in words for the user"""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.categories.values())

    @property
    def label_of_category(self) -> dict[int, int]:
        """Category id → 0-based label."""
        return {category_id: label for label, category_id in enumerate(self.categories)}

    @property
    def num_objects(self) -> int:
        """Annotations that are not crowd regions."""
        return sum(not annotation.is_crowd for image in self.images for annotation in image.annotations)

    @property
    def num_crowds(self) -> int:
        return sum(annotation.is_crowd for image in self.images for annotation in image.annotations)


def annotation_rle(annotation: Annotation, image: AnnotatedImage) -> dict[str, Any]:
    """The annotation's mask as one COCO RLE with compressed counts.

    Polygons of fewer than three points have no area. They are left out, since pycocotools takes four numbers for a box.
    """
    segmentation = annotation.segmentation
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= MIN_POLYGON_NUMBERS]
        return dict(rle_tools.merge(rle_tools.frPyObjects(polygons, image.height, image.width)))
    size = [image.height, image.width]
    counts = segmentation["counts"]
    if isinstance(counts, list):
        whole = {"size": size, "counts": [int(count) for count in counts]}
        return dict(rle_tools.frPyObjects(whole, image.height, image.width))
    return {"size": size, "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def ground_truth_arrays(image: AnnotatedImage, label_of_category: Mapping[int, int]) -> dict[str, np.ndarray]:
    """The ground truth of an image in its own pixels.

    Returns:
        `boxes` (G, 4) float32 xyxy clipped to the image, `labels` (G,) int64, `masks` (G, H, W) uint8 of 0 and 1,
        `is_crowd` (G,) bool; G may be 0.
    """
    annotations = image.annotations
    boxes = np.array([annotation.bbox for annotation in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, np.array([image.width, image.height] * 2, np.float32))
    if annotations:
        # decode gives Fortran order (H, W, G): read backwards it is C order without a copy
        masks = rle_tools.decode([annotation_rle(annotation, image) for annotation in annotations])
        masks = masks.transpose(2, 0, 1)
    else:
        masks = np.zeros((0, image.height, image.width), np.uint8)
    return {
        "boxes": boxes,
        "labels": np.array([label_of_category[annotation.category_id] for annotation in annotations], np.int64),
        "masks": masks,
        "is_crowd": np.array([annotation.is_crowd for annotation in annotations], bool),
    }


def coco_json(data: AnnotatedImages) -> dict[str, Any]:
    """The data set as a COCO instances object, masks as RLE, for pycocotools or for writing.

    Annotations are numbered from 1: pycocotools takes an object of id 0 for one that was not found.
    """
    annotations: list[dict[str, Any]] = []
    for image in data.images:
        for annotation in image.annotations:
            rle = annotation_rle(annotation, image)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": annotation.category_id,
                    "bbox": [float(value) for value in annotation.bbox],
                    "area": float(rle_tools.area(rle)) if annotation.area is None else annotation.area,
                    "iscrowd": int(annotation.is_crowd),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                }
            )
    images = [
        {"id": image.image_id, "file_name": image.file_name, "height": image.height, "width": image.width}
        for image in data.images
    ]
    categories = [{"id": category_id, "name": name} for category_id, name in data.categories.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _short(value: object, limit: int = 80) -> str:
    """`repr` of a value of the file, cut where it is long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
