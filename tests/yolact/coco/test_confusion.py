"""Confusion matrices: by hand, and equal to those of supervision."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as rle_tools
from support.detections import drawn_truth, imperfect_detections, rle
from support.shared_data import shared_path

from yolact.coco.annotations import coco_json
from yolact.coco.confusion import BACKGROUND, confusion_matrix
from yolact.coco.evaluation import DetectedInstance
from yolact.coco.reading import parse_coco


def block(x, width=10):
    mask = np.zeros((20, 60), bool)
    mask[5:15, x : x + width] = True
    return rle(mask)


def truth(*objects):
    """Objects as (category id, mask, crowd), all in image 1."""
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 60}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "ant"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": category, "iscrowd": int(crowd), "segmentation": mask}
            for n, (category, mask, crowd) in enumerate(objects, start=1)
        ],
    }


def found(category, score, mask):
    return DetectedInstance(1, category, score, None, (0, 0, 1, 1), mask)


def test_a_matrix_by_hand():
    objects = truth((1, block(0), False), (2, block(20), False), (2, block(40), False))
    detections = [
        found(1, 0.5, block(2)),  # right, though the other one below fits better
        found(2, 0.9, block(0)),  # its object is taken by the same class
        found(1, 0.9, block(21)),  # a cat taken for an ant
        found(2, 0.1, block(40)),  # below the score
    ]
    matrix = confusion_matrix(objects, detections, 0.3)
    assert matrix.names == ("ant", "cat")
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert matrix.pairs() == [(BACKGROUND, "cat", 1), ("cat", "ant", 1), ("cat", BACKGROUND, 1)]
    assert confusion_matrix(objects, [], 0.3).counts.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_a_detection_in_a_crowd_of_its_class_is_no_mistake():
    crowd = truth((1, block(0, 40), True))
    detections = [found(1, 0.9, block(5)), found(2, 0.9, block(5)), found(1, 0.9, block(37))]
    assert confusion_matrix(crowd, detections, 0.3).counts.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


def check_against_supervision(content, detections, score):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed (tests/readers.txt)")
    from supervision.metrics import MetricTarget

    row_of = {id_: row for row, id_ in enumerate(sorted(c["id"] for c in content["categories"]))}

    def instances(entries, height, width):
        masks = [rle_tools.decode(mask).astype(bool) for _, mask, _ in entries] or np.zeros((0, height, width), bool)
        return supervision.Detections(
            xyxy=np.zeros((len(entries), 4)),
            mask=np.array(masks),
            class_id=np.array([row_of[category] for category, _, _ in entries], int),
            confidence=np.array([confidence for _, _, confidence in entries], float),
        )

    targets, predictions = [], []
    for image in content["images"]:
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        theirs = [d for d in detections if d.image_id == image["id"]]
        size = (image["height"], image["width"])
        targets.append(instances([(a["category_id"], a["segmentation"], 1.0) for a in mine], *size))
        predictions.append(instances([(d.category_id, d.mask, d.score) for d in theirs], *size))
    expected = supervision.ConfusionMatrix.from_detections(
        predictions=predictions,
        targets=targets,
        classes=[str(id_) for id_ in row_of],
        conf_threshold=score,
        # supervision takes pairs above the threshold, and some of these are exactly at 0.5, where COCO counts them
        iou_threshold=0.5 - 1e-9,
        metric_target=MetricTarget.MASKS,
    )
    matrix = confusion_matrix(content, detections, score)
    assert matrix.counts.tolist() == expected.matrix.astype(int).tolist()
    return matrix


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.compute
def test_matrices_are_those_of_supervision(seed):
    # supervision knows no crowd regions
    content = drawn_truth(seed, images=40, crowds=False)
    matrix = check_against_supervision(content, imperfect_detections(content, seed + 50), 0.4)
    kinds = {BACKGROUND in pair[:2] for pair in matrix.pairs()}
    assert kinds == {True, False}


@pytest.mark.compute
def test_the_matrix_of_the_photos_is_that_of_supervision():
    content = coco_json(parse_coco((shared_path("data") / "coco" / "instances_val.json").read_bytes()))
    content["annotations"] = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    matrix = check_against_supervision(content, imperfect_detections(content, 1), 0.4)
    assert matrix.counts.sum() > 800
