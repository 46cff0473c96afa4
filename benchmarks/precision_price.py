"""Measures how much AP each precision loses, and how well its detections agree with those of float32.

    python -m benchmarks.precision_price --annotations instances_val.json --images val/

Prints a Markdown table with AP from 0 to 100. int8 is calibrated as in `yolact label`: on a seeded sample of the images
to label. Every precision is compared with the exact path, float32 by eager. Two detections agree if they have the same
class and a mask IoU of at least 0.5.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from benchmarks.harness import run_benchmark
from jobs.train.data import open_image_set
from jobs.train.validation import detect_with
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import evaluate_instances
from yolact.images.decode import decode_image
from yolact.images.prepare import prepare_image
from yolact.inference.openvino_engine import quantise
from yolact.inference.predictor import Predictor
from yolact.weights.checkpoint import load_model

if TYPE_CHECKING:
    from jobs.train.data import ImageSet
    from yolact.coco.evaluation import DetectedInstance

#: only detections above this score are compared: users rarely look at lower ones
_SEEN = 0.3
_SAME_MASK = 0.5


@dataclass(frozen=True)
class PrecisionPriceConfig:
    """Options of the measurement."""

    annotations: str
    """COCO instances JSON of the validation set"""
    images: str
    """folder of its images"""
    config: str = "nuclei"
    """config with shipped or published weights"""
    weights: str | None = None
    """other weights"""
    precisions: tuple[str, ...] = ("float32", "float32/openvino", "bfloat16/eager", "int8")
    """what to measure: a precision, with /engine for another engine than auto; the first is the one compared with"""
    max_detections: int = 500
    """detections per image that count in AP"""
    limit: int | None = None
    """use only the first N images"""
    calibration_images: int = 48
    """images for the calibration of int8; yolact label takes 48"""
    threads: int = 2
    """CPU threads"""
    output: Path | None = None
    """JSON file for the figures"""


@dataclass(frozen=True)
class Agreement:
    """How well the detections of one precision agree with those of the exact path."""

    found_again: float
    """share of the exact path's detections that have a counterpart"""
    mask_iou: float
    """mean over the detections with a counterpart"""
    score_difference: float
    """mean absolute difference over the detections with a counterpart"""


def main(config: PrecisionPriceConfig) -> None:
    """Measure every precision and print a row for each."""
    torch.set_num_threads(config.threads)
    images = open_image_set(config.annotations, config.images, "validation set")
    images = replace(images, data=replace(images.data, images=images.data.images[: config.limit]))
    model, loaded = load_model(config.weights, config.config)
    exact: list[DetectedInstance] = []
    figures: dict[str, dict[str, float]] = {}
    print(f"{len(images.data.images)} images, weights {loaded.sha256[:12]}")
    print("| precision | mask AP | change | box AP | change | found again | mask IoU | score difference |")
    print("|---|---|---|---|---|---|---|---|")
    for name in config.precisions:
        precision, _, engine = name.partition("/")
        options: dict[str, Any] = {"precision": precision, "engine": engine or "auto"}
        if precision == "int8":
            options["network"] = quantise_on(images, model, config.calibration_images)
        predict = Predictor(model, device="cpu", score_threshold=model.config.nms.score_floor, **options)
        found = list(detect_with(predict, images, range(len(images.data.images))))
        exact = exact or found
        scores = evaluate_instances(coco_json(images.data), found, config.max_detections)
        same = agreement(exact, found)
        figures[name] = {
            "mask_ap": 100 * scores["mask"].ap,
            "box_ap": 100 * scores["box"].ap,
            "found_again": same.found_again,
            "mask_iou": same.mask_iou,
            "score_difference": same.score_difference,
        }
        print(_row(name, figures[name], figures[config.precisions[0]]), flush=True)
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=2) + "\n")


def _row(name: str, own: dict[str, float], first: dict[str, float]) -> str:
    scores = " | ".join(f"{own[key]:.2f} | {own[key] - first[key]:+.2f}" for key in ("mask_ap", "box_ap"))
    same = f"{100 * own['found_again']:.2f} % | {own['mask_iou']:.4f} | {own['score_difference']:.4f}"
    return f"| {name} | {scores} | {same} |"


def quantise_on(images: ImageSet, model: Any, count: int) -> Any:
    """The model in int8, calibrated on a seeded sample."""
    names = [image.file_name for image in images.data.images]
    chosen = random.Random(0).sample(names, min(count, len(names)))
    pixels = (decode_image(images.read_bytes(name)) for name in chosen)
    return quantise(model, [prepare_image(image, model.config.input_size) for image in pixels])


def _overlaps(detections: list[DetectedInstance], candidates: list[DetectedInstance]) -> np.ndarray:
    """Mask IoU as (detections, candidates); for two empty masks, the IoU of their boxes.

    The mask of a small box can be empty, and its IoU with itself would be 0.
    """
    not_crowd = [0] * len(candidates)
    masks = np.asarray(coco_mask.iou([d.mask for d in detections], [c.mask for c in candidates], not_crowd))
    empty = [coco_mask.area([d.mask for d in group]) == 0 for group in (detections, candidates)]
    if not (empty[0].any() and empty[1].any()):
        return masks
    boxes = [np.asarray([d.bbox for d in group], np.float64) for group in (detections, candidates)]
    return np.where(np.outer(*empty), coco_mask.iou(*boxes, not_crowd), masks)


def agreement(exact: list[DetectedInstance], found: list[DetectedInstance]) -> Agreement:
    """Match every detection of `exact` above a score of 0.3, best first, with the best free detection of `found`.

    Detections of `found` with a lower score may be counterparts too. Where `exact` has no detection, all agree.
    """
    by_kind: dict[tuple[int | str, int], list[DetectedInstance]] = {}
    for detection in found:
        by_kind.setdefault((detection.image_id, detection.category_id), []).append(detection)
    wanted: dict[tuple[int | str, int], list[DetectedInstance]] = {}
    for detection in sorted(exact, key=lambda detection: -detection.score):
        if detection.score > _SEEN:
            wanted.setdefault((detection.image_id, detection.category_id), []).append(detection)
    overlaps: list[float] = []
    differences: list[float] = []
    for kind, detections in wanted.items():
        candidates = by_kind.get(kind, [])
        if not candidates:
            continue
        ious = _overlaps(detections, candidates)
        for row, detection in enumerate(detections):
            best = int(ious[row].argmax())
            if ious[row, best] >= _SAME_MASK:
                overlaps.append(float(ious[row, best]))
                differences.append(abs(detection.score - candidates[best].score))
                ious[:, best] = -1
    total = sum(map(len, wanted.values()))
    if not total:
        return Agreement(1.0, 1.0, 0.0)
    mean = (float(np.mean(overlaps)), float(np.mean(differences))) if overlaps else (0.0, 1.0)
    return Agreement(len(overlaps) / total, *mean)


if __name__ == "__main__":
    run_benchmark(PrecisionPriceConfig, __doc__, main)
