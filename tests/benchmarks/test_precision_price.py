"""How far the detections of one precision agree with those of another."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from benchmarks.precision_price import agreement
from yolact.coco.evaluation import DetectedInstance


def detection(box, *, score=0.9, filled=True, image=1, category=1):
    x, y, width, height = box
    pixels = np.zeros((40, 40), np.uint8, order="F")
    if filled:
        pixels[y : y + height, x : x + width] = 1
    return DetectedInstance(image, category, score, None, box, coco_mask.encode(pixels))


def test_detections_agree_with_themselves_also_where_a_mask_is_empty():
    found = [
        detection((0, 0, 10, 10)),
        detection((20, 20, 3, 3), score=0.8, filled=False),
        detection((30, 30, 3, 3), score=0.7, filled=False),
        detection((5, 5, 10, 10), category=2),
    ]
    same = agreement(found, found)
    assert (same.found_again, same.mask_iou, same.score_difference) == (1.0, 1.0, 0.0)


def test_an_empty_mask_elsewhere_is_no_counterpart():
    exact = [detection((0, 0, 10, 10)), detection((20, 20, 4, 4), filled=False)]
    found = [detection((0, 0, 10, 8), score=0.7), detection((30, 30, 4, 4), filled=False)]
    same = agreement(exact, found)
    assert same.found_again == 0.5
    assert same.mask_iou == pytest.approx(0.8)
    assert same.score_difference == pytest.approx(0.2)


def test_a_full_mask_is_no_counterpart_of_an_empty_one():
    assert agreement([detection((0, 0, 9, 9), filled=False)], [detection((0, 0, 9, 9))]).found_again == 0.0
    assert agreement([], []).found_again == 1.0
