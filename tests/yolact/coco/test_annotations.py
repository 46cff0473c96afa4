"""COCO JSON: reading, what is found broken, ground truth as arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from yolact.coco.annotations import coco_json, ground_truth_arrays
from yolact.coco.checks import find_problems, without_problems
from yolact.coco.reading import parse_coco

SQUARE = [2.0, 3.0, 6.0, 3.0, 6.0, 7.0, 2.0, 7.0]


def rle(height=20, width=30):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[10:14, 20:28] = 1
    encoded = rle_tools.encode(mask)
    return {"size": [height, width], "counts": encoded["counts"].decode()}


def annotation(number, image=7, category=90, bbox=(2, 3, 4, 4), segmentation=None, crowd=0):
    segmentation = [SQUARE] if segmentation is None else segmentation
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(bbox),
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def content(*annotations):
    return {
        "images": [
            {"id": 900, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 7, "file_name": "a.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": list(annotations),
    }


def test_ids_need_not_be_contiguous_and_empty_images_stay():
    data = parse_coco(json.dumps(content(annotation(55))))
    assert [(image.file_name, len(image.annotations)) for image in data.images] == [("a.png", 1), ("b.png", 0)]
    assert data.class_names == ("cat", "dog")
    assert data.label_of_category == {3: 0, 90: 1}
    assert find_problems(data, ["a.png", "b.png"]) == []


def test_polygons_rle_and_crowds_become_arrays():
    uncompressed = {"size": [20, 30], "counts": [5, 10, 585]}
    data = parse_coco(
        content(
            annotation(1),
            annotation(2, category=3, bbox=(20, 10, 8, 4), segmentation=rle()),
            annotation(3, bbox=(0, 0, 1, 20), segmentation=uncompressed, crowd=1),
        )
    )
    arrays = ground_truth_arrays(data.images[0], data.label_of_category)
    assert arrays["boxes"].tolist() == [[2, 3, 6, 7], [20, 10, 28, 14], [0, 0, 1, 20]]
    assert arrays["labels"].tolist() == [1, 0, 1]
    assert arrays["is_crowd"].tolist() == [False, False, True]
    assert arrays["masks"].shape == (3, 20, 30)
    assert arrays["masks"][0, 3:7, 2:6].all()
    assert arrays["masks"].sum(axis=(1, 2)).tolist() == [16, 32, 10]
    assert arrays["masks"][2, 5:15, 0].all()  # RLE runs down the columns


def test_image_without_objects_has_empty_arrays():
    data = parse_coco(content())
    arrays = ground_truth_arrays(data.images[0], data.label_of_category)
    assert [arrays[name].shape for name in ("boxes", "labels", "masks", "is_crowd")] == [
        (0, 4),
        (0,),
        (0, 20, 30),
        (0,),
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (annotation(5, bbox=(2, 3, 0, 4)), "0 px wide"),
        (annotation(5, bbox=(2, 3, 4, -1)), "-1 px high"),
        (annotation(5, bbox=(2, 3, 4)), "four finite numbers"),
        (annotation(5, bbox=(2, math.nan, 4, 4)), "four finite numbers"),
        (annotation(5, bbox=(31, 3, 4, 4)), "outside of its 30×20 image"),
        (annotation(5, category=4), "category id 4"),
        (annotation(5, image=8), "image 8, which is not listed"),
        (annotation(5, segmentation=[[1, 2, 3, 4]]), "three or more pairs"),
        (annotation(5, segmentation=[[40, 2, 50, 2, 50, 9]]), "outside of its 30×20 image only"),
        (annotation(5, segmentation=[[1, 2, math.inf, 2, 5, 9]]), "not a finite number"),
        (annotation(5, segmentation=[]), "no segmentation"),
        (annotation(5, segmentation=rle(height=21)), "RLE of size [21, 30]"),
    ],
)
def test_broken_annotations_are_told_with_their_ids_and_can_be_left_out(broken, message):
    data = parse_coco(content(annotation(4), broken, annotation(6)))
    (problem,) = find_problems(data)
    assert problem.annotation_id == 5
    assert message in problem.message
    mended = without_problems(data, [problem])
    assert [a.annotation_id for a in mended.images[0].annotations] == [4, 6]
    assert find_problems(mended) == []


def test_missing_files_are_told_and_leave_with_their_image():
    data = parse_coco(content(annotation(4)))
    (problem,) = find_problems(data, ["b.png"])
    assert (problem.kind, problem.image_id) == ("file missing", 7)
    assert [image.image_id for image in without_problems(data, [problem]).images] == [900]


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"images": [], "categories": []}'])
def test_other_files_are_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match=r"mine\.json is not a COCO instances file"):
        parse_coco(text, "mine.json")


def test_an_image_id_may_not_come_twice():
    twice = content()
    twice["images"][0]["id"] = 7
    with pytest.raises(ValueError, match="image id 7 more than once"):
        parse_coco(twice)


def test_coco_json_is_read_back_the_same():
    data = parse_coco(content(annotation(1), annotation(2, category=3, bbox=(20, 10, 8, 4), segmentation=rle())))
    again = parse_coco(json.dumps(coco_json(data)))
    for before, after in zip(data.images, again.images, strict=True):
        ours = ground_truth_arrays(before, data.label_of_category)
        theirs = ground_truth_arrays(after, again.label_of_category)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
