"""AP by hand-computed cases, and against pycocotools' own summary."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolact.coco.annotations import coco_json
from yolact.coco.checks import find_problems
from yolact.coco.evaluation import DetectedInstance, evaluate_instances
from yolact.coco.reading import parse_coco


def rle(x, y, width, height, size=100):
    mask = np.zeros((size, size), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    encoded = rle_tools.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def truth(*boxes, images=1, categories=("a", "b")):
    """Boxes as (image, category, x, y, w, h)."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in range(1, images + 1)],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(categories, start=1)],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": rle(*box),
            }
            for n, (image, category, *box) in enumerate(boxes, start=1)
        ],
    }


def found(image, category, score, *box, mask_score=None):
    return DetectedInstance(image, category, score, mask_score, box, rle(*box))


def test_perfect_detections_score_one_and_nothing_found_scores_zero():
    expected = truth((1, 10, 10, 10, 20, 20), (1, 20, 50, 50, 40, 40))
    perfect = evaluate_instances(expected, [found(1, 10, 0.9, 10, 10, 20, 20), found(1, 20, 0.4, 50, 50, 40, 40)])
    for scores in perfect.values():
        assert (scores.ap, scores.ap50, scores.ap75, scores.ap_small, scores.ap_medium) == pytest.approx(
            (1, 1, 1, 1, 1)
        )
        assert scores.ap_large == -1
        assert set(scores.ap_by_iou) == {f"{0.5 + 0.05 * i:.2f}" for i in range(10)}
        assert len(scores.headline()) == 12
    nothing = evaluate_instances(expected, [])
    assert nothing["mask"].ap == nothing["box"].ap == 0


def test_ap_at_each_iou_follows_the_overlap():
    # 20 × 20 against 20 × 16: IoU 0.8, so right up to 0.80 and wrong from 0.85 on
    scores = evaluate_instances(truth((1, 10, 10, 10, 20, 20)), [found(1, 10, 0.9, 10, 10, 20, 16)])["mask"]
    assert [round(ap) for ap in scores.ap_by_iou.values()] == [1] * 7 + [0] * 3
    assert scores.ap == pytest.approx(0.7)
    assert scores.ap_by_class == {"a": pytest.approx(0.7), "b": -1}


def test_masks_are_ranked_by_their_own_score_where_they_have_one():
    expected = truth((1, 10, 10, 10, 20, 20))
    detections = [
        found(1, 10, 0.9, 60, 60, 20, 20, mask_score=0.1),  # false alarm, first by box score
        found(1, 10, 0.5, 10, 10, 20, 20, mask_score=0.4),
    ]
    scores = evaluate_instances(expected, detections)
    assert scores["mask"].ap50 == pytest.approx(1)
    assert scores["box"].ap50 == pytest.approx(0.5)


@pytest.mark.compute
def test_more_objects_than_detections_count_only_with_a_higher_limit():
    boxes = [(1, 10, 9 * (i % 11), 9 * (i // 11), 6, 6) for i in range(120)]
    detections = [found(1, 10, 0.9 - i / 1000, *box) for i, (_, _, *box) in enumerate(boxes)]
    assert evaluate_instances(truth(*boxes), detections, 100)["mask"].ap50 < 0.9
    assert evaluate_instances(truth(*boxes), detections, 500)["mask"].ap50 == pytest.approx(1)


def test_numbers_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    boxes, detections = [], []
    for image in range(1, 6):
        for _ in range(8):
            x, y, w, h = (int(v) for v in rng.integers([0, 0, 8, 8], [60, 60, 40, 40]))
            boxes.append((image, int(rng.choice([10, 20])), x, y, w, h))
            if rng.random() < 0.8:
                dx, dy = (int(v) for v in rng.integers(-3, 4, 2))
                category = boxes[-1][1]
                detections.append(found(image, category, float(rng.random()), max(0, x + dx), max(0, y + dy), w, h))
    expected = truth(*boxes, images=5)
    check_against_pycocotools(expected, expected, detections)


@pytest.mark.compute
def test_area_crowds_and_polygons_of_a_file_count_as_in_pycocotools():
    rng = np.random.default_rng(1)
    entries, detections = [], []
    for number in range(1, 61):
        image = int(rng.choice([3, 20, 100]))
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 8, 8], [60, 60, 40, 40]))
        polygon = [x, y, x + w, y, x + w, y + h, x + 0.5, y + h]
        entries.append(
            {
                "id": number,
                "image_id": image,
                "category_id": int(rng.choice([10, 20])),
                "bbox": [x, y, w, h],
                # COCO's areas are not those of the masks: sizes are judged by the file
                "area": float(rng.choice([0, 500, 1024, 5000, 9216, 20000])),
                "iscrowd": int(rng.random() < 0.1),
                "segmentation": [polygon] if number % 3 else rle(x, y, w, h),
            }
        )
        score = float(rng.choice([0.3, 0.5, 0.7]))  # ties between images go by the order of their ids
        detections.append(found(image, entries[-1]["category_id"], score, max(0, x - 2), y, w, h))
    content = {
        "images": [{"id": i, "file_name": f"{-i}.png", "height": 100, "width": 100} for i in (100, 20, 3)],
        "categories": [{"id": 20, "name": "b"}, {"id": 10, "name": "a"}],
        "annotations": entries,
    }
    data = parse_coco(content)
    assert find_problems(data) == []
    check_against_pycocotools(coco_json(data), content, detections)


def check_against_pycocotools(truth, content, detections):
    """`evaluate_instances` of `truth` against pycocotools' own summary of `content`, to 1e-9."""
    ours = evaluate_instances(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(content)
        coco.createIndex()
        for kind, iou_type in (("mask", "segm"), ("box", "bbox")):
            part = {"segm": "segmentation", "bbox": "bbox"}[iou_type]
            results = [
                {
                    "image_id": d.image_id,
                    "category_id": d.category_id,
                    "score": d.score,
                    part: d.mask if iou_type == "segm" else list(d.bbox),
                }
                for d in detections
            ]
            theirs = COCOeval(coco, coco.loadRes(results), iou_type)
            theirs.evaluate()
            theirs.accumulate()
            theirs.summarize()
            assert list(ours[kind].headline().values()) == pytest.approx(list(theirs.stats), abs=1e-9, rel=0)


def test_image_ids_may_be_numbers_beside_texts():
    boxes = [(1, 10, 10, 10, 20, 20), (2, 10, 40, 10, 20, 20)]
    mixed = truth(*boxes, images=2)
    mixed["images"][1]["id"] = mixed["annotations"][1]["image_id"] = "two"
    detections = [found(1, 10, 0.9, *boxes[0][2:]), found("two", 10, 0.8, *boxes[1][2:])]
    assert evaluate_instances(mixed, detections)["mask"].ap == pytest.approx(1)


def test_strangers_are_refused():
    with pytest.raises(ValueError, match="image 9 and category 10"):
        evaluate_instances(truth((1, 10, 0, 0, 9, 9)), [found(9, 10, 0.5, 0, 0, 9, 9)])
    with pytest.raises(ValueError, match="max_detections 10"):
        evaluate_instances(truth((1, 10, 0, 0, 9, 9)), [], 10)
