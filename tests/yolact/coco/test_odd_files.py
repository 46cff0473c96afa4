"""Every odd file is read as it is meant, or told with its id, or refused in one line; none reaches C code unchecked."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.odd_annotations import BROKEN, BROKEN_IMAGES, MENDED, ODD_ID, REFUSED, good_content

from yolact.coco.annotations import coco_json, ground_truth_arrays
from yolact.coco.checks import find_problems, without_problems
from yolact.coco.reading import parse_coco


def by_name(oddities):
    return pytest.mark.parametrize("oddity", oddities, ids=lambda oddity: oddity.name)


def arrays_of(data):
    return [ground_truth_arrays(image, data.label_of_category) for image in data.images]


@by_name(MENDED)
def test_what_can_only_mean_one_thing_is_read(oddity):
    good = parse_coco(good_content())
    data = parse_coco(oddity.text())
    assert find_problems(data) == []
    assert len(data.class_names) == 2
    for found, expected in zip(arrays_of(data), arrays_of(good), strict=True):
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    areas = {entry["area"] for entry in coco_json(data)["annotations"]}
    assert areas == {144}


@by_name(BROKEN)
def test_what_cannot_be_a_mask_is_told_with_its_id_and_can_be_left_out(oddity):
    data = parse_coco(oddity.text())
    (problem,) = find_problems(data)
    assert problem.annotation_id == ODD_ID
    assert re.search(oddity.problem, problem.message)
    assert str(problem).startswith(f"annotation {ODD_ID} of image ")
    left = without_problems(data, [problem])
    assert [[a.annotation_id for a in image.annotations] for image in left.images] == [[11, 12], []]
    assert find_problems(left) == []
    assert len(coco_json(left)["annotations"]) == 2


@by_name(BROKEN_IMAGES)
def test_what_cannot_be_an_image_is_told_with_its_id_and_can_be_left_out(oddity):
    data = parse_coco(oddity.text())
    problems = find_problems(data)
    assert re.search(oddity.problem, str(problems[0]))
    left = without_problems(data, problems)
    assert "a.png" in {image.file_name for image in left.images}
    assert find_problems(left) == []
    arrays_of(left)


@by_name(REFUSED)
def test_what_is_no_instances_file_is_refused_by_name_in_one_line(oddity):
    with pytest.raises(ValueError, match=oddity.refused) as caught:
        parse_coco(oddity.text(), "mine.json")
    message = str(caught.value)
    assert message.startswith("mine.json ")
    assert "\n" not in message
    assert len(message) < 250


def test_a_broken_annotation_leaves_without_the_good_one_of_the_same_id():
    content = good_content()
    content["annotations"][0]["id"] = content["annotations"][1]["id"] = 5
    content["annotations"][1]["segmentation"] = []
    data = parse_coco(content)
    assert data.notes == ("1 annotation ids come more than once; every annotation counts",)
    problems = find_problems(data)
    assert [problem.annotation_id for problem in problems] == [5]
    left = without_problems(data, problems)
    assert [a.category_id for a in left.images[0].annotations] == [1]


def test_what_was_left_out_by_reading_is_said():
    content = good_content()
    content["categories"].append({"id": 9, "name": "person"})
    data = parse_coco(content)
    assert data.notes == ("category 9 has no objects and the name of category 1; it is left out",)
    assert list(data.categories) == [1, 8]


def test_ids_keep_the_form_that_the_file_gives_them():
    content = good_content()
    content["images"][0]["id"], content["images"][1]["id"] = "1", "007"
    content["annotations"][2]["image_id"] = "007"
    data = parse_coco(content)
    assert [image.image_id for image in data.images] == ["1", "007"]
    assert [len(image.annotations) for image in data.images] == [2, 1]
