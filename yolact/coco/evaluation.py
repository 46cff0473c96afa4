"""COCO average precision of masks and boxes, by pycocotools, and the matches behind it.

Validation while training, `yolact evaluate` and the report all use `evaluate_instances`, so their numbers agree. The
curves of `yolact.coco.curves` are made from the matches.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolact.coco.curves import ClassMatches

#: index of "all sizes" on the area axis of COCOeval's arrays; then small (< 32² px), medium (< 96² px), large
ALL_SIZES, SMALL, MEDIUM, LARGE = range(4)
#: the numbers of detections per image at which COCO reports recall, before the largest one
RECALL_AT = (1, 10)


class DetectedInstance(NamedTuple):
    """One detection, in the pixels of its image."""

    image_id: int | str
    category_id: int
    score: float
    """the order of boxes goes by it, and the order of masks that have no `mask_score`"""
    mask_score: float | None
    bbox: Sequence[float]
    """x, y, width, height"""
    mask: Mapping[str, Any]
    """COCO RLE"""


@dataclass(frozen=True)
class CocoScores:
    """COCO's numbers for one kind of overlap, each 0–1, or −1 where there is no ground truth of that kind."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    ap_by_iou: dict[str, float]
    """AP at each IoU, keyed by its two decimals: 0.50, 0.55 … 0.95"""
    ap_by_class: dict[str, float]
    max_detections: int
    """detections per image that count, the best ones"""

    def headline(self) -> dict[str, float]:
        """The twelve numbers of COCO's summary by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


@dataclass(frozen=True)
class Evaluation:
    """Scores of masks and boxes ("mask", "box"), and the matches of masks by class name in the order of category ids.

    The matches go by `score` also where masks have a `mask_score`: thresholds act on `score`.
    """

    scores: dict[str, CocoScores]
    matches: dict[str, ClassMatches]
    ious: tuple[float, ...]
    """the values of IoU on the first axis of the matches"""


def evaluate_instances(
    ground_truth: Mapping[str, Any], detections: Sequence[DetectedInstance], max_detections: int = 100
) -> dict[str, CocoScores]:
    """Average precision over IoU 0.50:0.05:0.95 of masks and boxes.

    Args:
        ground_truth: COCO instances object; its images define what is counted.
        detections: all detections of these images, in any order; none gives AP 0.
        max_detections: per image and class, the best that count (COCO: 100).

    Returns:
        {"mask": …, "box": …}

    Raises:
        ValueError: if a detection belongs to an image or category that the ground truth does not have, or if
            `max_detections` is not above 10.
    """
    return _evaluate(ground_truth, detections, max_detections, with_matches=False).scores


def evaluate_and_match(
    ground_truth: Mapping[str, Any], detections: Sequence[DetectedInstance], max_detections: int = 100
) -> Evaluation:
    """The same as `evaluate_instances`, with the matches of the masks."""
    return _evaluate(ground_truth, detections, max_detections, with_matches=True)


def _evaluate(
    ground_truth: Mapping[str, Any], detections: Sequence[DetectedInstance], max_detections: int, *, with_matches: bool
) -> Evaluation:
    if max_detections <= RECALL_AT[-1]:
        raise ValueError(
            f"max_detections {max_detections} must be above {RECALL_AT[-1]}, where COCO measures recall too"
        )
    known_images = {image["id"] for image in ground_truth["images"]}
    known_categories = {category["id"] for category in ground_truth["categories"]}
    for detection in detections:
        if detection.image_id not in known_images or detection.category_id not in known_categories:
            raise ValueError(
                f"a detection has image {detection.image_id!r} and category {detection.category_id!r}, "
                "of which the ground truth lacks one; leave such detections out"
            )
    ground_truth, detections = _with_numbers(ground_truth, detections)
    matches: dict[str, ClassMatches] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _indexed(ground_truth, list(ground_truth["annotations"]))
        by_kind = {kind: _matched(truth, ground_truth, detections, kind, max_detections) for kind in ("mask", "box")}
        if with_matches:
            by_score = by_kind["mask"]
            if any(detection.mask_score is not None for detection in detections):
                without = [detection._replace(mask_score=None) for detection in detections]
                by_score = _matched(truth, ground_truth, without, "mask", max_detections)
            matches = _matches(by_score, ground_truth)
        scores = {kind: _scores(evaluation, ground_truth, max_detections) for kind, evaluation in by_kind.items()}
    return Evaluation(scores, matches, tuple(by_kind["mask"].params.iouThrs.tolist()))


def _with_numbers(
    ground_truth: Mapping[str, Any], detections: Sequence[DetectedInstance]
) -> tuple[Mapping[str, Any], Sequence[DetectedInstance]]:
    """The same with image ids as numbers from 1, since pycocotools cannot sort the ids 1 and "two".

    The order of the images stays that of pycocotools: it decides between equal scores.
    """
    ids = [image["id"] for image in ground_truth["images"]]
    by_number = all(isinstance(image_id, int) for image_id in ids)
    numbers = {image_id: number for number, image_id in enumerate(sorted(ids, key=None if by_number else str), start=1)}
    truth = {
        **ground_truth,
        "images": [{**image, "id": numbers[image["id"]]} for image in ground_truth["images"]],
        "annotations": [{**entry, "image_id": numbers[entry["image_id"]]} for entry in ground_truth["annotations"]],
    }
    return truth, [detection._replace(image_id=numbers[detection.image_id]) for detection in detections]


def _indexed(ground_truth: Mapping[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {**ground_truth, "annotations": annotations}
    coco.createIndex()
    return coco


def _matched(
    truth: COCO,
    ground_truth: Mapping[str, Any],
    detections: Sequence[DetectedInstance],
    kind: str,
    max_detections: int,
) -> COCOeval:
    """pycocotools' own record, matched but not yet added up."""
    results = [_result(number, detection, kind) for number, detection in enumerate(detections, start=1)]
    evaluation = COCOeval(truth, _indexed(ground_truth, results), {"mask": "segm", "box": "bbox"}[kind])
    evaluation.params.maxDets = [*RECALL_AT, max_detections]
    evaluation.evaluate()
    return evaluation


def _matches(evaluation: COCOeval, ground_truth: Mapping[str, Any]) -> dict[str, ClassMatches]:
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    parameters = evaluation.params
    num_images = len(parameters.imgIds)
    found: dict[str, ClassMatches] = {}
    for place, category_id in enumerate(parameters.catIds):
        # pycocotools' list goes by class, then by size, then by image; all sizes come first
        first = place * len(parameters.areaRng) * num_images
        entries = [entry for entry in evaluation.evalImgs[first : first + num_images] if entry is not None]
        nothing = np.zeros((len(parameters.iouThrs), 0), bool)
        taken = np.concatenate([nothing, *(entry["dtMatches"] > 0 for entry in entries)], axis=1)
        left_out = np.concatenate([nothing, *(entry["dtIgnore"] > 0 for entry in entries)], axis=1)
        found[names[category_id]] = ClassMatches(
            objects=sum(int((entry["gtIgnore"] == 0).sum()) for entry in entries),
            scores=np.array([score for entry in entries for score in entry["dtScores"]], np.float64),
            right=taken & ~left_out,
            left_out=left_out,
        )
    return found


def _scores(evaluation: COCOeval, ground_truth: Mapping[str, Any], max_detections: int) -> CocoScores:
    evaluation.accumulate()
    # axes of precision: IoU, recall, class, size, detections per image; recall lacks the second
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    thresholds = evaluation.params.iouThrs
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    best = precision[..., -1]
    return CocoScores(
        ap=_mean(best[:, :, :, ALL_SIZES]),
        ap50=_mean(best[0, :, :, ALL_SIZES]),
        ap75=_mean(best[5, :, :, ALL_SIZES]),
        ap_small=_mean(best[:, :, :, SMALL]),
        ap_medium=_mean(best[:, :, :, MEDIUM]),
        ap_large=_mean(best[:, :, :, LARGE]),
        ar_1=_mean(recall[:, :, ALL_SIZES, 0]),
        ar_10=_mean(recall[:, :, ALL_SIZES, 1]),
        ar_max=_mean(recall[:, :, ALL_SIZES, 2]),
        ar_small=_mean(recall[:, :, SMALL, 2]),
        ar_medium=_mean(recall[:, :, MEDIUM, 2]),
        ar_large=_mean(recall[:, :, LARGE, 2]),
        ap_by_iou={f"{iou:.2f}": _mean(best[i, :, :, ALL_SIZES]) for i, iou in enumerate(thresholds)},
        ap_by_class={
            names[category_id]: _mean(best[:, :, position, ALL_SIZES])
            for position, category_id in enumerate(evaluation.params.catIds)
        },
        max_detections=max_detections,
    )


def _result(number: int, detection: DetectedInstance, kind: str) -> dict[str, Any]:
    """A detection as pycocotools wants it. Its own `COCO.loadRes` fails for an empty list, and gives masks the areas of
    their boxes where a result has both.
    """
    result: dict[str, Any] = {
        "id": number,
        "image_id": detection.image_id,
        "category_id": detection.category_id,
        "iscrowd": 0,
        "score": detection.score,
    }
    if kind == "mask":
        result["score"] = detection.score if detection.mask_score is None else detection.mask_score
        result["segmentation"] = detection.mask
        result["area"] = float(rle_tools.area(detection.mask))
    else:
        result["bbox"] = [float(value) for value in detection.bbox]
        result["area"] = result["bbox"][2] * result["bbox"][3]
    return result


def _mean(values: np.ndarray) -> float:
    """COCO's mean: entries without ground truth are −1 and left out."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
