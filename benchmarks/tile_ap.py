"""Measures the AP of a model with and without tiles, on all images of a data set and on the large ones alone.

    python -m benchmarks.tile_ap --annotations instances_val.json --images val/

Prints a Markdown table with AP from 0 to 100: whole images, tiles, tiles with the whole image. Large images are those
that the largest of the measured tiles cuts. Tiles change nothing in images that they do not cut.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.harness import run_benchmark
from jobs.runtime.errors import JobError
from jobs.train.data import ImageSet, open_image_set
from jobs.train.validation import detect_with
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import DetectedInstance, evaluate_instances
from yolact.images.tile_config import TileConfig
from yolact.inference.predictor import Predictor
from yolact.weights.checkpoint import load_model


@dataclass(frozen=True)
class TileApConfig:
    """Options of the measurement."""

    annotations: str
    """COCO instances JSON of the validation set"""
    images: str
    """folder of its images"""
    config: str = "nuclei"
    """config with shipped or published weights"""
    weights: str | None = None
    """other weights"""
    tiles: tuple[int, ...] = (768, 512)
    """sides of tiles in pixels"""
    overlap: float = 0.2
    """share of a tile that the next one shows too"""
    max_detections: int = 500
    """detections per image that count in AP"""
    limit: int | None = None
    """use only the first N images"""
    threads: int = 2
    """CPU threads"""
    output: Path | None = None
    """JSON file for the figures"""


def main(config: TileApConfig) -> None:
    """Measure every way and print a row for each."""
    torch.set_num_threads(config.threads)
    images = open_image_set(config.annotations, config.images, "validation set")
    images = replace(images, data=replace(images.data, images=images.data.images[: config.limit]))
    model, loaded = load_model(config.weights, config.config)
    largest = max(config.tiles)
    big = [image.image_id for image in images.data.images if max(image.height, image.width) > largest]
    if not big:
        raise JobError(f"no image is larger than {largest} px: smaller --tiles")
    ways: dict[str, TileConfig | None] = {"whole images": None}
    for size in config.tiles:
        ways[f"tiles of {size} px"] = TileConfig(size, config.overlap, whole_image=False)
        ways[f"tiles of {size} px and the whole image"] = TileConfig(size, config.overlap)
    print(f"{len(images.data.images)} images, {len(big)} above {largest} px, weights {loaded.sha256[:12]}")
    print("| | mask AP | box AP | mask AP, large | box AP, large | seconds |")
    print("|---|---|---|---|---|---|")
    figures = {}
    for name, tile in ways.items():
        floor = model.config.nms.score_floor
        predict = Predictor(model, device="cpu", precision="float32", score_threshold=floor, tile=tile)
        begin = time.perf_counter()
        found = list(detect_with(predict, images, range(len(images.data.images))))
        seconds = time.perf_counter() - begin
        every = _ap(images, found, config.max_detections)
        large = _ap(_only(images, big), [d for d in found if d.image_id in big], config.max_detections)
        figures[name] = {"all": every, "large": large, "seconds": seconds}
        values = " | ".join(f"{value:.2f}" for value in (*every.values(), *large.values()))
        print(f"| {name} | {values} | {seconds:.0f} |", flush=True)
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=2) + "\n")


def _only(images: ImageSet, ids: list[int | str]) -> ImageSet:
    kept = tuple(image for image in images.data.images if image.image_id in ids)
    return replace(images, data=replace(images.data, images=kept))


def _ap(images: ImageSet, found: list[DetectedInstance], max_detections: int) -> dict[str, float]:
    scores = evaluate_instances(coco_json(images.data), found, max_detections)
    return {kind: 100 * scores[kind].ap for kind in ("mask", "box")}


if __name__ == "__main__":
    run_benchmark(TileApConfig, __doc__, main)
