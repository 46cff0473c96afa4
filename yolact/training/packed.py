"""The ground truth of a data set in a few arrays, so that 118,000 images fit into every loader process.

Python objects take over 2 KiB an annotation, and forked processes copy them as they count references. Arrays are
shared by all processes of a worker.

Shapes: I images, N annotations of all images, G annotations of one image.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_tools

from yolact.coco.annotations import MIN_POLYGON_NUMBERS, AnnotatedImage, AnnotatedImages, Annotation, annotation_rle

#: an object's outline: its polygons, (2n,) float32 of x, y, x, y … in pixels of the image, or compressed RLE counts
#: (float32 moves a corner by at most 1/30,000 of a pixel in images of 1,000 px)
Shape = tuple[np.ndarray, ...] | bytes


class ImageTruth(NamedTuple):
    """What is known to be in one image."""

    height: int
    width: int
    boxes: np.ndarray
    """(G, 4) float32 xyxy in pixels of the image, clipped to it"""
    labels: np.ndarray
    """(G,) int64, 0-based"""
    is_crowd: np.ndarray
    """(G,) bool"""
    shapes: tuple[Shape, ...]
    """one for each object"""

    def whole_masks(self) -> np.ndarray:
        """(G, height, width) uint8 of 0 and 1."""
        if not self.shapes:
            return np.zeros((0, self.height, self.width), np.uint8)
        # decode gives Fortran order (H, W, G): read backwards it is C order without a copy
        masks: np.ndarray = rle_tools.decode([shape_rle(shape, self.height, self.width) for shape in self.shapes])
        return masks.transpose(2, 0, 1)


def shape_rle(shape: Shape, height: int, width: int) -> dict[str, Any]:
    """A shape as COCO RLE with compressed counts. Polygons are cut at the edge of a height × width map."""
    if isinstance(shape, bytes):
        return {"size": [height, width], "counts": shape}
    return dict(rle_tools.merge(rle_tools.frPyObjects(list(shape), height, width)))


class PackedImages:
    """Images and annotations of a data set, by position.

    Args:
        data: annotations without faults.
    """

    def __init__(self, data: AnnotatedImages) -> None:
        images = data.images
        annotations = [annotation for image in images for annotation in image.annotations]
        labels = data.label_of_category
        self.sizes = np.array([(image.height, image.width) for image in images], np.int32).reshape(-1, 2)
        """(I, 2) height and width"""
        self._first = _starts([len(image.annotations) for image in images])
        self._boxes = np.array([annotation.bbox for annotation in annotations], np.float32).reshape(-1, 4)
        self._boxes[:, 2:] += self._boxes[:, :2]
        self._labels = np.array([labels[annotation.category_id] for annotation in annotations], np.int32)
        self._is_crowd = np.array([annotation.is_crowd for annotation in annotations], bool)
        self._names = _Texts(image.file_name for image in images)
        self._ids = _Texts(json.dumps(image.image_id) for image in images)
        self._rles = _Texts.of_bytes(_counts(annotation, image) for image in images for annotation in image.annotations)
        polygons = [_polygons(annotation) for annotation in annotations]
        self._first_part = _starts([len(parts) for parts in polygons])
        self._first_number = _starts([len(part) for parts in polygons for part in parts])
        self._numbers = np.fromiter(
            (number for parts in polygons for part in parts for number in part),
            np.float32,
            count=int(self._first_number[-1]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def num_objects(self) -> int:
        """Annotations that are not crowd regions."""
        return int((~self._is_crowd).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        parts = [self.sizes, self._first, self._boxes, self._labels, self._is_crowd]
        parts += [self._first_part, self._first_number, self._numbers]
        return sum(part.nbytes for part in parts) + sum(texts.nbytes for texts in (self._names, self._ids, self._rles))

    def file_name(self, position: int) -> str:
        """File name of an image."""
        return self._names[position].decode("utf-8", "surrogateescape")

    def image_id(self, position: int) -> int | str:
        """Id of an image."""
        value: int | str = json.loads(self._ids[position])
        return value

    def truth(self, position: int) -> ImageTruth:
        """The ground truth of an image."""
        height, width = self.sizes[position].tolist()
        first, last = self._first[position : position + 2].tolist()
        return ImageTruth(
            height,
            width,
            self._boxes[first:last].clip(0, np.array([width, height] * 2, np.float32)),
            self._labels[first:last].astype(np.int64),
            self._is_crowd[first:last],
            tuple(self._shape(number) for number in range(first, last)),
        )

    def _shape(self, annotation: int) -> Shape:
        first, last = self._first_part[annotation : annotation + 2].tolist()
        if first == last:
            return self._rles[annotation]
        limits = self._first_number[first : last + 1].tolist()
        return tuple(self._numbers[begin:end] for begin, end in itertools.pairwise(limits))


class _Texts:
    """Byte strings one after the other in one array."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pack([text.encode("utf-8", "surrogateescape") for text in texts])

    @classmethod
    def of_bytes(cls, texts: Iterable[bytes]) -> _Texts:
        packed = cls(())
        packed._pack(list(texts))
        return packed

    def _pack(self, texts: list[bytes]) -> None:
        self._starts = _starts([len(text) for text in texts])
        self._bytes = np.frombuffer(b"".join(texts), np.uint8)

    def __getitem__(self, position: int) -> bytes:
        return self._bytes[self._starts[position] : self._starts[position + 1]].tobytes()

    @property
    def nbytes(self) -> int:
        return self._starts.nbytes + self._bytes.nbytes


def _starts(counts: Sequence[int]) -> np.ndarray:
    """(n,) lengths → (n + 1,) int64 where each part starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])


def _polygons(annotation: Annotation) -> list[list[float]]:
    """The polygons that have an area: pycocotools takes four numbers for a box."""
    if not isinstance(annotation.segmentation, list):
        return []
    return [polygon for polygon in annotation.segmentation if len(polygon) >= MIN_POLYGON_NUMBERS]


def _counts(annotation: Annotation, image: AnnotatedImage) -> bytes:
    """Compressed counts of an RLE; nothing for polygons."""
    if isinstance(annotation.segmentation, list):
        return b""
    counts: bytes = annotation_rle(annotation, image)["counts"]
    return counts
