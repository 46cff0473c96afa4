"""Annotations in arrays: the same ground truth as the records, in few bytes."""

from __future__ import annotations

import numpy as np
import pytest
from support.odd_annotations import good_content

from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, Annotation, ground_truth_arrays
from yolact.coco.reading import parse_coco
from yolact.training.packed import PackedImages

#: bytes of an annotation with an outline of 22 points, a usual one in COCO, its image's share included
MOST_BYTES = 320


def made_up(images=200, per_image=7, points=22):
    """COCO's usual numbers: annotations of an image, points of an outline."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(images):
        annotations = tuple(
            Annotation(
                annotation_id=1000 * number + index,
                category_id=1 + int(rng.integers(80)),
                bbox=tuple(rng.uniform(1, 300, 4).tolist()),
                segmentation=[(rng.integers(0, 4 * 480, 2 * points) / 4).tolist()],  # exact in float32
            )
            for index in range(per_image)
        )
        records.append(AnnotatedImage(number, f"{number:012d}.jpg", 480, 640, annotations))
    return AnnotatedImages(tuple(records), {number: f"class {number}" for number in range(1, 81)})


def test_an_annotation_takes_few_bytes():
    data = made_up()
    assert PackedImages(data).nbytes / data.num_objects < MOST_BYTES


@pytest.mark.parametrize("data", [parse_coco(good_content()), made_up(5, 3)], ids=["polygons and RLE", "made up"])
def test_the_ground_truth_is_that_of_the_records(data):
    packed = PackedImages(data)
    assert len(packed) == len(data.images)
    assert packed.num_objects == data.num_objects
    for position, image in enumerate(data.images):
        assert (packed.image_id(position), packed.file_name(position)) == (image.image_id, image.file_name)
        truth, wanted = packed.truth(position), ground_truth_arrays(image, data.label_of_category)
        assert (truth.height, truth.width) == (image.height, image.width)
        for name in ("boxes", "labels", "is_crowd"):
            np.testing.assert_array_equal(getattr(truth, name), wanted[name])
        np.testing.assert_array_equal(truth.whole_masks(), wanted["masks"])


def test_names_and_ids_of_any_kind_stay():
    square = Annotation(1, 5, (0, 0, 4, 4), [[0, 0, 4, 0, 4, 4]])
    names = ["ä.png", "b c.png", "not utf-8 \udcff.png"]
    images = tuple(
        AnnotatedImage(identity, name, 8, 8, (square,)) for identity, name in zip(["007", 7, "ö"], names, strict=True)
    )
    packed = PackedImages(AnnotatedImages(images, {5: "a"}))
    assert [packed.image_id(position) for position in range(3)] == ["007", 7, "ö"]
    assert [packed.file_name(position) for position in range(3)] == names
