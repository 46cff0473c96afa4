"""Times post-processing (detection, masks, run lengths) against the simple path, and Fast NMS against torchvision's.

    python -m benchmarks.postprocess

Takes a minute on two cores. Both paths must give the same bits before they are timed. Times are medians. The two paths
take turns, so that their ratio is right on a busy machine too.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from benchmarks.harness import run_benchmark
from jobs.bench.release_path import simple_detect, simple_masks, simple_rles
from yolact.config import CONFIGS, NmsConfig, YolactConfig
from yolact.geometry.rle import encode_mask_logits
from yolact.inference.detections import DetectionRules
from yolact.inference.nms import fast_nms
from yolact.inference.postprocess import detect, instance_masks
from yolact.network.anchors import make_anchors
from yolact.network.model import RawPredictions, build_yolact


@dataclass(frozen=True)
class PostprocessBenchConfig:
    """Options of the measurement."""

    config: str = "yolact_resnet50"
    """model whose anchors, classes and prototypes to take"""
    height: int = 480
    """of the image, pixels"""
    width: int = 640
    """of the image, pixels"""
    score_threshold: float = 0.15
    """as in yolact label"""
    repeats: int = 20
    """timed calls of each; the simple path takes a fifth of it"""
    threads: int = 2
    """torch's CPU threads"""
    output: Path | None = None
    """JSON file for the figures"""


def in_turns(calls: dict[str, tuple[Callable[[], object], int]], rounds: int = 4) -> dict[str, list[float]]:
    """Milliseconds of every call, round by round; `calls` are by name, with how often each runs in a round."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call, _ in calls.values():
        call()
    for _ in range(rounds):
        for name, (call, times) in calls.items():
            for _ in range(times):
                start = time.perf_counter()
                call()
                spent[name].append(1000 * (time.perf_counter() - start))
    return spent


def compare_paths(config: PostprocessBenchConfig, instances: int) -> dict[str, float]:
    """Median milliseconds of both paths on a scene, and of the product's steps. Raises where the results differ."""
    model = CONFIGS[config.config]
    network = build_yolact(model).eval()
    rules = DetectionRules(replace(model.nms, kind="fast"), config.score_threshold)
    raw, anchors = make_scene(model, instances)
    height, width = config.height, config.width

    def own_detect() -> Any:
        return detect(raw, 0, anchors, rules)

    def own() -> Any:
        found = own_detect()
        masks = instance_masks(network, raw.prototypes[0], found)
        return found, encode_mask_logits(masks.logits, masks.regions, height, width)

    def simple(dtype: torch.dtype = torch.float32) -> Any:
        found = simple_detect(raw, 0, anchors, model.nms, config.score_threshold)
        return found, simple_rles(simple_masks(raw.prototypes[0], found, height, width, dtype))

    found, (rles, _) = own()
    expected, expected_rles = simple(torch.float64)
    same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    if not same or rles != expected_rles or len(rles) != instances:
        raise AssertionError(f"{instances} instances: the results of the two paths differ")
    masks = instance_masks(network, raw.prototypes[0], found)
    spent = in_turns(
        {
            "own_ms": (own, config.repeats // 4),
            "simple_ms": (simple, max(1, config.repeats // 20)),
            "detect_ms": (own_detect, config.repeats // 4),
            "assemble_ms": (lambda: instance_masks(network, raw.prototypes[0], found), config.repeats // 4),
            "encode_ms": (lambda: encode_mask_logits(masks.logits, masks.regions, height, width), config.repeats // 4),
        }
    )
    figures = {name: statistics.median(times) for name, times in spent.items()}
    return figures | {"ratio": figures["simple_ms"] / figures["own_ms"]}


def compare_nms(candidates: int = 2000, classes: int = 80) -> dict[str, float]:
    """Median milliseconds of Fast NMS and of `torchvision.ops.batched_nms`.

    `batched_nms` is timed twice: with all pairs of box and class, and with only the best class of each box. Boxes and
    scores are random; the settings are the release's: IoU 0.5, 200 boxes a class, 100 detections.
    """
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(candidates, 2, generator=rng) * 0.8
    boxes = torch.cat([corner, corner + 0.02 + 0.3 * torch.rand(candidates, 2, generator=rng)], dim=1)
    scores = torch.rand(candidates, classes, generator=rng) ** 4
    settings = NmsConfig()
    labels = torch.arange(classes).expand(candidates, classes).reshape(-1)
    every_box = boxes[:, None].expand(candidates, classes, 4).reshape(-1, 4)
    best, best_label = scores.max(dim=1)
    spent = in_turns(
        {
            "fast_nms_ms": (lambda: fast_nms(boxes, scores, settings, 0.05), 10),
            "batched_nms_best_class_ms": (lambda: batched_nms(boxes, best, best_label, 0.5)[:100], 5),
            "batched_nms_all_pairs_ms": (lambda: batched_nms(every_box, scores.reshape(-1), labels, 0.5)[:100], 1),
        },
        rounds=2,
    )
    return {name: statistics.median(times) for name, times in spent.items()}


def measure(config: PostprocessBenchConfig) -> dict[str, dict[str, float]]:
    """All figures."""
    torch.set_num_threads(config.threads)
    with torch.inference_mode():
        return {
            "100 detections": compare_paths(config, 100),
            "10 detections": compare_paths(config, 10),
            "2,000 candidates × 80 classes": compare_nms(),
        }


def main(config: PostprocessBenchConfig) -> None:
    """Measure, print a line per figure, write the JSON."""
    figures = measure(config)
    for case, values in figures.items():
        print(f"{case}: " + ", ".join(f"{name.replace('_ms', ' ms')} {value:.2f}" for name, value in values.items()))
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run_benchmark(PostprocessBenchConfig, __doc__, main)


#: anchors that predict the same instance
_ANSWERS = 12


def make_scene(config: YolactConfig, instances: int, seed: int = 0) -> tuple[RawPredictions, Tensor]:
    """Raw predictions of one image (batch of 1) and the anchors (A, 4).

    There are `instances` boxes of all sizes and classes. Twelve anchors predict each of them, with scores from 0.3 to
    1; all other anchors predict background. Prototypes are smooth blobs, so that masks have outlines like real ones.
    """
    rng = torch.Generator().manual_seed(seed)
    anchors = make_anchors(config)
    count, classes, prototypes = len(anchors), config.num_classes, config.num_prototypes
    logits = torch.randn(count, classes + 1, generator=rng)
    logits[:, 0] += 9
    deltas = 0.3 * torch.randn(count, 4, generator=rng)
    coefficients = torch.tanh(torch.randn(count, prototypes, generator=rng))
    # the many small anchors come first; this spread makes half of the instances large
    place = (torch.linspace(0, 1, instances) ** 0.08 * (count - _ANSWERS)).long()
    for instance, first in enumerate(place.tolist()):
        rows = slice(first, first + _ANSWERS)
        # the twelve anchors predict nearly the same box, around the first anchor
        box = anchors[first].clone()
        wanted = box + 0.02 * box[2:].repeat(2) * torch.randn(_ANSWERS, 4, generator=rng)
        deltas[rows, :2] = (wanted[:, :2] - anchors[rows, :2]) / (0.1 * anchors[rows, 2:])
        deltas[rows, 2:] = torch.log(wanted[:, 2:] / anchors[rows, 2:]) / 0.2
        logits[rows, 1 + instance % classes] = 9 + 3 * torch.rand(_ANSWERS, generator=rng)
    coarse = torch.randn(1, prototypes, 14, 14, generator=rng)
    size = config.prototype_size
    maps = F.interpolate(coarse, (size, size), mode="bicubic").relu()
    return RawPredictions(deltas[None], logits[None], coefficients[None], maps, None), anchors
