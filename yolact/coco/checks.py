"""Checks annotations for training, evaluation and the report: it finds every one that cannot be a mask, with its id.

pycocotools gives polygons and run lengths to C code that does not check them. A damaged one can end the process, take
all memory, or give a meaningless mask. So every annotation must pass these checks before pycocotools gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolact.coco.annotations import (
    MIN_POLYGON_NUMBERS,
    AnnotatedImage,
    AnnotatedImages,
    Annotation,
    AnnotationProblem,
)

#: height × width; run lengths are 32-bit numbers in pycocotools
MAX_MASK_PIXELS = 2**31 - 1
#: pixels from 0 that a coordinate may have, also outside of its image
MAX_COORDINATE = 1_000_000
#: pixels along the outlines of one object; pycocotools takes about 50 bytes of memory for each
MAX_OUTLINE = 4_000_000
#: characters of one number in compressed run lengths: 5 bits each
_MAX_COUNT_CHARACTERS = 7


@dataclass(frozen=True)
class Fault:
    """What makes a record useless: the kind of fault, and a message that goes on after "annotation …"."""

    kind: str
    message: str


def find_problems(data: AnnotatedImages, existing_files: Iterable[str] | None = None) -> list[AnnotationProblem]:
    """Everything in a data set that cannot be used, with the ids of image and annotation.

    Args:
        data: what `parse_coco` read, or records from elsewhere.
        existing_files: file names that are there; None leaves files unchecked.
    """
    problems = list(data.problems)
    present = None if existing_files is None else set(existing_files)
    seen: set[str] = set()
    for image in data.images:
        if present is not None and image.file_name not in present:
            problems.append(AnnotationProblem("file missing", f"file {image.file_name!r} is not there", image.image_id))
        if image.file_name in seen:
            message = f"has the file name {image.file_name!r}, which an earlier image has too"
            problems.append(AnnotationProblem("file twice", message, image.image_id))
        seen.add(image.file_name)
        size_problem = _size_problem(image)
        if size_problem is not None:
            problems.append(size_problem)
            continue  # nothing can be said of masks without a size
        for annotation in image.annotations:
            fault = annotation_fault(annotation, image, data.categories)
            if fault is not None:
                problems.append(
                    AnnotationProblem(fault.kind, fault.message, image.image_id, annotation.annotation_id, annotation)
                )
    return problems


def without_problems(data: AnnotatedImages, problems: Iterable[AnnotationProblem]) -> AnnotatedImages:
    """Leave out the annotations and images that `problems` of this data set name.

    Annotations go by their record, not by their id: ids may repeat.
    """
    problems = list(problems)
    broken_images = {problem.image_id for problem in problems if problem.annotation_id is None}
    broken = {id(problem.annotation) for problem in problems if problem.annotation is not None}
    images = tuple(
        replace(image, annotations=tuple(a for a in image.annotations if id(a) not in broken))
        for image in data.images
        if image.image_id not in broken_images
    )
    return replace(data, images=images, problems=())


def _size_problem(image: AnnotatedImage) -> AnnotationProblem | None:
    if image.height >= 1 and image.width >= 1 and image.height * image.width <= MAX_MASK_PIXELS:
        return None
    return AnnotationProblem("size", f"is {image.width}×{image.height} px by the annotations", image.image_id)


def annotation_fault(annotation: Annotation, image: AnnotatedImage, categories: Mapping[int, str]) -> Fault | None:
    """What makes an annotation useless in its image, whose size is valid; None where nothing does."""
    if annotation.category_id not in categories:
        return Fault("category unknown", f"has category id {annotation.category_id!r}, which is not listed")
    box = annotation.bbox
    if len(box) != 4 or not all(map(_is_number, box)):
        return Fault("box", f"has box {str(list(box))[:80]}; four finite numbers are needed")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return Fault("box", f"has a box {width:g} px wide and {height:g} px high")
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        return Fault("box", f"has a box outside of its {image.width}×{image.height} image")
    return segmentation_fault(annotation.segmentation, image)


def segmentation_fault(segmentation: Any, image: AnnotatedImage) -> Fault | None:
    """What makes a segmentation useless for its image, whose size is valid; None where nothing does."""
    if isinstance(segmentation, Mapping):
        return rle_fault(segmentation, image.height, image.width)
    if not isinstance(segmentation, list) or not any(segmentation):
        return Fault("mask", "has no segmentation")
    if not all(isinstance(polygon, list) for polygon in segmentation):
        return Fault("polygon", "has a segmentation that is not a list of polygons, each a list of x, y, x, y …")
    # a part without area beside parts with one is common, and does not change the mask
    polygons = [polygon for polygon in segmentation if len(polygon) >= MIN_POLYGON_NUMBERS]
    if not polygons or any(len(polygon) % 2 for polygon in segmentation):
        return Fault("polygon", "has a polygon that is not three or more pairs of x, y")
    inside, outline = False, 0.0
    for polygon in polygons:
        points = _numbers(polygon)
        if points is None:
            return Fault("polygon", "has a polygon with a coordinate that is not a finite number")
        furthest = float(np.abs(points).max())
        if furthest > MAX_COORDINATE:
            return Fault("polygon", f"has a polygon with a coordinate {furthest:.3g} px away")
        x, y = points[0::2], points[1::2]
        inside |= bool(x.max() > 0 and y.max() > 0 and x.min() < image.width and y.min() < image.height)
        steps = np.maximum(np.abs(np.diff(x, append=x[:1])), np.abs(np.diff(y, append=y[:1])))
        outline += float(steps.sum()) + len(x)
    if outline > MAX_OUTLINE:
        return Fault("polygon", f"has polygons with an outline of {outline:.3g} px; {MAX_OUTLINE:,} are allowed")
    if not inside:
        return Fault("polygon", f"has polygons outside of its {image.width}×{image.height} image only")
    return None


def rle_fault(rle: Mapping[str, Any], height: int, width: int) -> Fault | None:
    """What makes an RLE useless for an image of that size; None where it is safe to hand to pycocotools."""
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        return Fault("size", f"has a mask in an image of {width}×{height} px")
    size = rle.get("size")
    expected = [height, width]
    if not isinstance(size, list | tuple) or list(size) != expected:
        turned = " (height and width are swapped)" if size == expected[::-1] else ""
        return Fault("mask", f"has an RLE of size {str(size)[:40]} in an image of {expected}{turned}")
    counts = rle.get("counts")
    if isinstance(counts, list):
        runs = _numbers(counts)
        runs = None if runs is None or (runs % 1).any() else runs
    elif isinstance(counts, str | bytes):
        runs = _compressed_runs(counts)
    else:
        return Fault("mask", f"has an RLE whose counts are {str(counts)[:40]}")
    if runs is None:
        return Fault("mask", "has an RLE whose counts are not run lengths")
    pixels = height * width
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        return Fault("mask", "has an RLE with a run below 0 or longer than its image")
    total = int(runs.sum())
    if total != pixels:
        return Fault("mask", f"has an RLE of {total} pixels in an image of {pixels}")
    return None


def _compressed_runs(counts: str | bytes) -> np.ndarray | None:
    """(R,) int64 run lengths of COCO's compressed counts; None for text that is not such counts.

    Each character holds 5 bits of a number, the lowest first, a flag for more, and at the end the sign. From the third
    run on, a number is the difference to the run before the last.
    """
    try:
        data = counts if isinstance(counts, bytes) else counts.encode("ascii")
    except UnicodeEncodeError:
        return None
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_COUNT_CHARACTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _numbers(values: list[Any]) -> np.ndarray | None:
    """Values of the JSON as (N,) float64; None unless each is a finite number."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):  # nested lists of several lengths
        return None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        return None
    array = array.astype(np.float64)
    return array if np.isfinite(array).all() else None


def _is_number(value: object) -> bool:
    """Whether a value of the JSON is a number that pixels can have; false for NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE
