"""Annotated images in COCO's terms: reading the JSON, finding what is broken in it, and ground truth as arrays."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and what is known to be in it."""

    image_id: int | str
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class AnnotatedImages:
    """A data set: its images and its categories, in the order of their ids."""

    images: tuple[AnnotatedImage, ...]
    categories: Mapping[int, str]
    """COCO category id → name; the model's label is the position in this mapping"""
    strays: tuple[tuple[Annotation, int | str], ...] = ()
    """annotations with the id of an image that the file does not list"""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.categories.values())

    @property
    def label_of_category(self) -> dict[int, int]:
        """Category id → 0-based label."""
        return {category_id: label for label, category_id in enumerate(self.categories)}


@dataclass(frozen=True)
class Problem:
    """Something wrong in a data set, found before it is used."""

    kind: str
    message: str
    image_id: int | str | None = None
    annotation_id: int | str | None = None


def parse_coco(data: bytes | str | Mapping[str, Any], source: str = "the annotation file") -> AnnotatedImages:
    """Read a COCO instances file.

    Ids need not be contiguous; images without annotations stay. Annotations are not checked here: `find_problems` does.

    Args:
        data: the JSON text, or the parsed object.
        source: its name for error messages.

    Raises:
        ValueError: if it is not COCO JSON at all (no `images`, `annotations` or `categories`, duplicate image ids).
    """
    try:
        content = data if isinstance(data, Mapping) else json.loads(data)
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        grouped: dict[int | str, list[Annotation]] = defaultdict(list)
        for number, entry in enumerate(content["annotations"]):
            annotation = Annotation(
                annotation_id=entry.get("id", f"number {number}"),
                category_id=entry["category_id"],
                bbox=tuple(entry.get("bbox") or ()),
                segmentation=entry.get("segmentation"),
                is_crowd=bool(entry.get("iscrowd", 0)),
            )
            grouped[entry["image_id"]].append(annotation)
        images = tuple(
            AnnotatedImage(
                image_id=entry["id"],
                file_name=str(entry["file_name"]),
                height=int(entry["height"]),
                width=int(entry["width"]),
                annotations=tuple(grouped.pop(entry["id"], ())),
            )
            for entry in sorted(content["images"], key=lambda entry: str(entry["file_name"]))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} is not a COCO instances file ({error!r}); see cocodataset.org/#format-data"
        ) from None
    repeated = [image_id for image_id, count in Counter(image.image_id for image in images).items() if count > 1]
    if repeated:
        raise ValueError(f"{source} lists image id {repeated[0]!r} more than once; give every image an id of its own")
    strays = tuple((annotation, image_id) for image_id, left in grouped.items() for annotation in left)
    return AnnotatedImages(images, dict(sorted(categories.items())), strays)


def find_problems(data: AnnotatedImages, existing_files: Iterable[str] | None = None) -> list[Problem]:
    """Everything in a data set that training could not use, with the ids of image and annotation.

    Args:
        data: what `parse_coco` read.
        existing_files: file names that are there; None leaves files unchecked.
    """
    problems = [
        Problem("image unknown", f"belongs to image {image_id!r}, which is not listed", image_id, stray.annotation_id)
        for stray, image_id in data.strays
    ]
    present = None if existing_files is None else set(existing_files)
    for image in data.images:
        if present is not None and image.file_name not in present:
            problems.append(Problem("file missing", f"file {image.file_name!r} is not there", image.image_id))
        if image.height < 1 or image.width < 1:
            problems.append(Problem("size", f"is {image.width}×{image.height} px by the annotations", image.image_id))
        for annotation in image.annotations:
            fault = annotation_fault(annotation, image, data.categories)
            if fault is not None:
                problems.append(Problem(fault[0], fault[1], image.image_id, annotation.annotation_id))
    return problems


def without_problems(data: AnnotatedImages, problems: Iterable[Problem]) -> AnnotatedImages:
    """Leave out the annotations and images that `problems` names."""
    broken_images = {problem.image_id for problem in problems if problem.annotation_id is None}
    broken = {(problem.image_id, problem.annotation_id) for problem in problems}
    images = tuple(
        replace(
            image, annotations=tuple(a for a in image.annotations if (image.image_id, a.annotation_id) not in broken)
        )
        for image in data.images
        if image.image_id not in broken_images
    )
    return replace(data, images=images, strays=())


def annotation_fault(
    annotation: Annotation, image: AnnotatedImage, categories: Mapping[int, str]
) -> tuple[str, str] | None:
    """What makes an annotation useless, as (kind, message), or None."""
    if annotation.category_id not in categories:
        return "category unknown", f"has category id {annotation.category_id!r}, which is not listed"
    box = annotation.bbox
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        return "box", f"has box {list(box)!r}; four finite numbers are needed"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "box", f"has a box {width:g} px wide and {height:g} px high"
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        return "box", f"has a box outside of its {image.width}×{image.height} image"
    return segmentation_fault(annotation.segmentation, image)


def segmentation_fault(segmentation: Any, image: AnnotatedImage) -> tuple[str, str] | None:
    """What makes a segmentation useless for its image, as (kind, message), or None."""
    if isinstance(segmentation, Mapping):
        size = list(segmentation.get("size", ()))
        if "counts" not in segmentation or size != [image.height, image.width]:
            return "mask", f"has an RLE of size {size} in an image of {[image.height, image.width]}"
        return None
    if not isinstance(segmentation, list) or not segmentation:
        return "mask", "has no segmentation"
    inside = False
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            return "polygon", "has a polygon that is not three or more pairs of x, y"
        x, y = np.asarray(polygon[0::2], np.float64), np.asarray(polygon[1::2], np.float64)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return "polygon", "has a polygon with a coordinate that is not a finite number"
        inside |= bool(x.max() > 0 and y.max() > 0 and x.min() < image.width and y.min() < image.height)
    return None if inside else ("polygon", f"has polygons outside of its {image.width}×{image.height} image only")


def annotation_rle(annotation: Annotation, image: AnnotatedImage) -> dict[str, Any]:
    """The annotation's mask as one COCO RLE with compressed counts."""
    segmentation = annotation.segmentation
    if isinstance(segmentation, list):
        return dict(rle_tools.merge(rle_tools.frPyObjects(segmentation, image.height, image.width)))
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return dict(rle_tools.frPyObjects(segmentation, image.height, image.width))
    return {"size": list(segmentation["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}


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
    """The data set as a COCO instances object, masks as RLE, for pycocotools or for writing."""
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
                    "area": float(rle_tools.area(rle)),
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
