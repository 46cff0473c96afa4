"""Curves, best F1 and calibration: by hand, and equal to faster-coco-eval and scikit-learn to 1e-9."""

from __future__ import annotations

import copy
from collections import defaultdict

import numpy as np
import pytest
from pycocotools import mask as rle_tools
from support.detections import UNUSED, drawn_truth, imperfect_detections
from support.shared_data import shared_path

from yolact.coco.annotations import coco_json
from yolact.coco.curves import UNKNOWN, ClassMatches, Curve, calibration, curve, together
from yolact.coco.evaluation import evaluate_and_match, evaluate_instances
from yolact.coco.reading import parse_coco

IOUS = (0, 3, 5, 9)


def matches(scores, right, objects):
    right = np.array([right], bool)
    return ClassMatches(objects, np.array(scores, float), right, np.zeros_like(right))


def test_a_curve_by_hand():
    found = curve(matches([0.9, 0.5, 0.5, 0.2], [1, 0, 1, 0], objects=4), 0)
    assert found.scores.tolist() == [0.9, 0.5, 0.2]
    assert found.precision.tolist() == [1, 2 / 3, 0.5]
    assert found.recall.tolist() == [0.25, 0.5, 0.5]
    assert found.f1 == pytest.approx([0.4, 4 / 7, 0.5])
    assert found.best_f1() == found.at(0.5)
    assert found.best_f1().f1 == pytest.approx(4 / 7)
    assert found.at(0.6) == found.at(0.7).__class__(0.6, 1, 0.25, 0.4)
    assert (found.at(0.95).precision, found.at(0.95).recall, found.at(0.95).f1) == (UNKNOWN, 0, 0)
    assert found.with_precision(0.6).score == 0.5
    assert found.with_precision(0.7).score == 0.9
    assert found.with_precision(0.1).score == 0.2
    precision, scores = found.over_recall()
    assert (precision[:26] == 1).all()
    assert precision[26:51] == pytest.approx(2 / 3)
    assert (scores[:26] == 0.9).all()
    assert not precision[51:].any()


def test_of_equal_f1_the_highest_score_is_taken():
    # 1 of 1 right, then 2 of 4: with 2 objects both F1 are 2/3
    found = curve(matches([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], objects=2), 0)
    assert found.f1[0] == found.f1[3]
    assert found.best_f1().score == 0.9


def test_what_does_not_exist_is_said_so():
    nothing_found = curve(matches([], [], objects=3), 0)
    assert nothing_found.best_f1() is None
    assert nothing_found.with_precision(0.5) is None
    assert nothing_found.at(0.5).recall == 0
    no_objects = curve(matches([0.5], [0], objects=0), 0)
    assert (no_objects.recall.tolist(), no_objects.f1.tolist()) == ([UNKNOWN], [UNKNOWN])
    assert no_objects.best_f1() is no_objects.with_precision(0.0) is None
    never_right = curve(matches([0.5], [0], objects=1), 0)
    assert never_right.best_f1() is never_right.with_precision(0.0) is None
    assert together([], 10).objects == 0
    empty = calibration(together([], 10), 0)
    assert empty.expected_error == UNKNOWN
    assert (empty.share_right == UNKNOWN).all()


@pytest.mark.parametrize(
    ("scores", "score", "short"),
    [
        ([0.87654, 0.8211, 0.3], 0.87654, 0.87),
        ([0.87654, 0.8762, 0.3], 0.87654, 0.8765),
        ([0.5004, 0.3], 0.5004, 0.5),
        ([0.999, 0.4], 0.4, 0.399),
        ([0.0567], 0.0567, 0.05),
        ([1.0, 0.5], 1.0, 0.999),
        (
            [float(np.nextafter(np.float32(0.7), 1)), float(np.float32(0.7))],
            float(np.nextafter(np.float32(0.7), 1)),
            None,
        ),
    ],
)
def test_a_written_threshold_is_short_and_keeps_the_same_detections(scores, score, short):
    found = Curve(1, np.array(scores), np.ones(len(scores), int), np.ones(len(scores), int))
    rounded = found.rounded(score)
    assert short is None or rounded == short
    assert [s >= rounded for s in scores] == [s > rounded for s in scores] == [s >= score for s in scores]
    assert 0 < score - rounded <= 0.01
    assert len(str(rounded)) < 12


def test_matches_of_masks_go_by_the_score_that_thresholds_act_on():
    truth = drawn_truth(4)
    plain = imperfect_detections(truth, 5)
    rescored = [detection._replace(mask_score=1 - detection.score) for detection in plain]
    expected, found = evaluate_and_match(truth, plain), evaluate_and_match(truth, rescored)
    for name, one in expected.matches.items():
        assert (one.scores == found.matches[name].scores).all()
        assert (one.right == found.matches[name].right).all()
    assert found.scores == evaluate_instances(truth, rescored)
    assert found.scores["mask"].ap != expected.scores["mask"].ap


def independent_matches(truth, detections, iou):
    """By category id: scores and flags of the detections that count, and the number of objects, by faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = copy.deepcopy(truth)
    results = [
        {"image_id": d.image_id, "category_id": d.category_id, "score": d.score, "segmentation": d.mask}
        for d in detections
    ]
    coco = COCO(truth)
    evaluation = COCOeval_faster(coco, coco.loadRes(results), "segm", extra_calc=True, print_function=lambda *_: None)
    evaluation.params.iouThrs = np.array([iou])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    object_of = dict(map(int, pair.split("_")) for pair in evaluation.eval["matched"])
    scores, flags = defaultdict(list), defaultdict(list)
    for detection_id, result in evaluation.cocoDt.anns.items():
        target = object_of.get(detection_id)
        category_id, crowds = result["category_id"], crowds_of(truth, result)
        if target is not None and target not in crowds:
            right = True
        elif crowds and max(shares(result, [coco.anns[crowd] for crowd in crowds])) >= iou:
            continue  # in a crowd, neither right nor wrong
        else:
            right = False
        scores[category_id].append(result["score"])
        flags[category_id].append(right)
    objects = {
        category["id"]: sum(a["category_id"] == category["id"] and not a["iscrowd"] for a in truth["annotations"])
        for category in truth["categories"]
    }
    return scores, flags, objects


def crowds_of(truth, result):
    return [
        entry["id"]
        for entry in truth["annotations"]
        if entry["iscrowd"]
        and entry["image_id"] == result["image_id"]
        and entry["category_id"] == result["category_id"]
    ]


def shares(result, entries):
    """The share of a detection that lies in each crowd region."""
    return rle_tools.iou([result["segmentation"]], [entry["segmentation"] for entry in entries], [1] * len(entries))[0]


def by_scikit_learn(scores, flags, objects):
    """Precision, recall and F1 at each score, highest first. Objects that nobody found have a score below all.

    The F1 of a few scores is scikit-learn's own; it would take a minute for all of them.
    """
    # scikit-learn takes seconds to import, which `make quick` shall not wait for
    from sklearn.metrics import f1_score, precision_recall_curve

    missed = objects - sum(flags)
    precision, recall, thresholds = precision_recall_curve([*flags, *[True] * missed], [*scores, *[-1.0] * missed])
    some = thresholds >= 0
    precision, recall, thresholds = precision[:-1][some][::-1], recall[:-1][some][::-1], thresholds[some][::-1]
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    truth, found = np.array([*flags, *[True] * missed]), np.array([*scores, *[-1.0] * missed])
    for place in {0, int(f1.argmax()), len(f1) // 2, len(f1) - 1}:
        assert f1[place] == pytest.approx(f1_score(truth, found >= thresholds[place], zero_division=0), abs=1e-12)
    return thresholds, precision, recall, f1


def check_against_others(truth, detections):
    """Every curve, best F1 and calibration against the two libraries; returns how many curves were compared."""
    evaluation = evaluate_and_match(truth, detections)
    category_ids = {category["name"]: category["id"] for category in truth["categories"]}
    compared = 0
    for place in IOUS:
        all_scores, all_flags, all_objects = [], [], 0
        scores, flags, objects = independent_matches(truth, detections, evaluation.ious[place])
        for name, category_id in category_ids.items():
            found = evaluation.matches[name]
            assert found.objects == objects[category_id]
            all_scores += scores[category_id]
            all_flags += flags[category_id]
            all_objects += objects[category_id]
            if objects[category_id] and scores[category_id]:
                check_curve(curve(found, place), scores[category_id], flags[category_id], objects[category_id])
                check_calibration(calibration(found, place), scores[category_id], flags[category_id])
                compared += 1
        whole = together(evaluation.matches.values(), len(evaluation.ious))
        check_curve(curve(whole, place), all_scores, all_flags, all_objects)
        check_calibration(calibration(whole, place), all_scores, all_flags)
    return compared


def check_curve(found, scores, flags, objects):
    thresholds, precision, recall, f1 = by_scikit_learn(scores, flags, objects)
    assert found.scores.tolist() == thresholds.tolist()
    for mine, other in ((found.precision, precision), (found.recall, recall), (found.f1, f1)):
        assert mine == pytest.approx(other, abs=1e-9, rel=0)
    best = found.best_f1()
    if best is None:
        assert not f1.any()
        return
    assert best.f1 == pytest.approx(f1.max(), abs=1e-9, rel=0)
    # of scores with the same F1 but for its last bits, any may be the best
    assert f1[thresholds == best.score] == pytest.approx(f1.max(), abs=1e-9, rel=0)


def check_calibration(found, scores, flags):
    # scikit-learn takes seconds to import, which `make quick` shall not wait for
    from sklearn.calibration import calibration_curve

    share, mean = calibration_curve(flags, scores, n_bins=10)
    some = found.detections > 0
    assert found.share_right[some] == pytest.approx(share, abs=1e-9, rel=0)
    assert found.mean_score[some] == pytest.approx(mean, abs=1e-9, rel=0)
    assert found.detections.sum() == len(scores)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.compute
def test_curves_are_those_of_other_libraries(seed):
    truth = drawn_truth(seed)
    detections = imperfect_detections(truth, seed + 100)
    assert check_against_others(truth, detections) >= 10
    assert evaluate_and_match(truth, detections).matches[UNUSED].objects == 0


def test_curves_over_recall_are_those_of_pycocotools():
    truth = drawn_truth(7)
    # pycocotools goes through equal scores one by one, so no two are equal here
    detections = [d._replace(score=d.score + i * 1e-6) for i, d in enumerate(imperfect_detections(truth, 8))]
    evaluation = evaluate_and_match(truth, detections)
    for name, found in evaluation.matches.items():
        by_iou = [curve(found, place).over_recall()[0].mean() for place in range(len(evaluation.ious))]
        expected = evaluation.scores["mask"].ap_by_class[name]
        assert (np.mean(by_iou) if found.objects else -1) == pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.compute
def test_curves_of_the_photos_are_those_of_other_libraries():
    content = (shared_path("data") / "coco" / "instances_val.json").read_bytes()
    truth = coco_json(parse_coco(content))
    assert len(truth["images"]) == 105
    detections = imperfect_detections(truth, 0)
    assert check_against_others(truth, detections) > 100
