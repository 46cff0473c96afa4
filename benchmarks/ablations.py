"""Measures the paper's ablations that need no training: kind of NMS, masks with and without crop, size of the input.

    python -m benchmarks.ablations --annotations instances_val.json --images val/ --input-sizes 768 1024

Prints a Markdown table with AP and the time of the NMS alone, which runs on raw predictions of the same images.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.harness import run_benchmark
from jobs.train.data import open_image_set
from jobs.train.validation import detect_images
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import evaluate_instances
from yolact.images.decode import decode_image
from yolact.images.network_input import network_input
from yolact.images.prepare import prepare_image
from yolact.inference.detections import DetectionRules
from yolact.inference.postprocess import detect
from yolact.network.model import build_yolact
from yolact.weights.checkpoint import load_model

if TYPE_CHECKING:
    from jobs.train.data import ImageSet
    from yolact.config import NmsKind
    from yolact.network.model import Yolact


@dataclass(frozen=True)
class AblationsConfig:
    """Options of the measurement."""

    annotations: str
    """COCO instances JSON to evaluate on"""
    images: str
    """folder of its images"""
    config: str = "nuclei"
    """config with shipped or published weights"""
    weights: str | None = None
    """other weights"""
    max_detections: int = 500
    """detections per image that count"""
    limit: int | None = None
    """use only the first N images"""
    input_sizes: tuple[int, ...] = ()
    """measure these sides of the network input instead of the kinds of NMS; anchors keep their size in its pixels"""


def main(config: AblationsConfig) -> None:
    """Measure every variant and print the table."""
    images = open_image_set(config.annotations, config.images, "evaluation set")
    images = replace(images, data=replace(images.data, images=images.data.images[: config.limit]))
    model, _ = load_model(config.weights, config.config)
    if config.input_sizes:
        compare_input_sizes(model, images, config)
    else:
        compare_nms_and_crop(model, images, config)


def compare_input_sizes(model: Yolact, images: ImageSet, config: AblationsConfig) -> None:
    """A row per input size."""
    print("| input px | mask AP | mask AP50 | mask AP75 | box AP |")
    print("|---|---|---|---|---|")
    for size in config.input_sizes:
        scores = variant_scores(model, images, "fast", config.max_detections, input_size=size)
        print(f"| {size} | {scores} |", flush=True)


def compare_nms_and_crop(model: Yolact, images: ImageSet, config: AblationsConfig) -> None:
    """A row per kind of NMS with cropped masks, and one without the crop."""
    kinds: tuple[NmsKind, ...] = ("fast", "standard", "fast-cross-class")
    milliseconds = nms_times(model, images, kinds)
    print("| masks | NMS | mask AP | mask AP50 | mask AP75 | box AP | NMS ms/image |")
    print("|---|---|---|---|---|---|---|")
    for crop, nms in [(True, kind) for kind in kinds] + [(False, kinds[0])]:
        scores = variant_scores(model, images, nms, config.max_detections, crop_masks=crop)
        print(f"| {'cropped' if crop else 'not cropped'} | {nms} | {scores} | {milliseconds[nms]:.2f} |", flush=True)


def variant_scores(model: Yolact, images: ImageSet, nms: NmsKind, max_detections: int, **changes: Any) -> str:
    """Mask AP, AP50, AP75 and box AP, as cells, of the model's weights under another config."""
    variant = build_yolact(replace(model.config, **changes))
    variant.load_state_dict(model.state_dict())
    found = list(detect_images(variant, images, "cpu", range(len(images.data.images)), nms=nms))
    scores = evaluate_instances(coco_json(images.data), found, max_detections)
    mask, box = scores["mask"], scores["box"]
    return " | ".join(f"{100 * value:.2f}" for value in (mask.ap, mask.ap50, mask.ap75, box.ap))


def nms_times(model: Yolact, images: ImageSet, kinds: tuple[NmsKind, ...], rounds: int = 5) -> dict[str, float]:
    """Median milliseconds per image from raw predictions to kept boxes, per kind."""
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    with torch.inference_mode():
        for image in images.data.images:
            pixels = decode_image(images.read_bytes(image.file_name))
            prepared = prepare_image(pixels, model.config.input_size)
            raw = model.eval().infer(network_input(prepared, model.config)[None])
            for kind in kinds:
                rules = DetectionRules(replace(model.config.nms, kind=kind), 0.05)
                for _ in range(rounds):
                    start = time.perf_counter()
                    detect(raw, 0, model.anchors, rules)
                    spent[kind].append(1000 * (time.perf_counter() - start))
    return {kind: statistics.median(times) for kind, times in spent.items()}


if __name__ == "__main__":
    run_benchmark(AblationsConfig, __doc__, main)
