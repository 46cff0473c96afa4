"""What a data set holds, by hand-counted cases."""

from __future__ import annotations

from support.odd_annotations import good_content

from yolact.coco.overview import ClassCounts, count_classes, fit_boxes
from yolact.coco.reading import parse_coco


def test_objects_crowds_and_images_are_counted_by_class():
    content = good_content()
    content["annotations"].append({**content["annotations"][0], "id": 1, "iscrowd": 1})
    content["annotations"].append({**content["annotations"][0], "id": 2})
    content["categories"].append({"id": 9, "name": "dog"})
    assert count_classes(parse_coco(content)) == (
        ClassCounts("person", objects=3, crowds=1, images=2),
        ClassCounts("traffic light", objects=1, crowds=0, images=1),
        ClassCounts("dog", objects=0, crowds=0, images=0),
    )


def test_boxes_that_fit_their_masks_are_not_named():
    fit = fit_boxes(parse_coco(good_content()))
    assert (fit.objects, fit.misfits, fit.empty_masks, fit.fit_as_corners) == (3, (), (), 0)


def test_a_box_elsewhere_and_a_mask_without_pixels_are_named():
    content = good_content()
    content["annotations"][1]["bbox"] = [0, 0, 12, 12]
    content["annotations"][2]["segmentation"] = [[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]]
    fit = fit_boxes(parse_coco(content))
    assert [annotation.annotation_id for annotation in fit.misfits] == [12]
    assert [annotation.annotation_id for annotation in fit.empty_masks] == [77]
    assert fit.fit_as_corners == 0


def test_boxes_as_corners_are_recognised():
    content = good_content()
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
    fit = fit_boxes(parse_coco(content))
    assert len(fit.misfits) == fit.fit_as_corners == 3


def test_nothing_annotated_gives_nothing():
    fit = fit_boxes(parse_coco({**good_content(), "annotations": []}))
    assert (fit.objects, fit.misfits, fit.empty_masks) == (0, (), ())
