"""A stand-in for the model that returns fixed detections at almost no cost, and a checkpoint for it.

`jobs.label.command.label_lake` gets it as an argument, in place of the real predictor. The command line has no option
for it.
"""

from __future__ import annotations

import io
import logging
import sys
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import ray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime import progress
from yolact.config import CONFIGS
from yolact.images.prepare import PreparedImage
from yolact.inference.detections import Detections
from yolact.network.model import build_yolact
from yolact.weights.checkpoint import save_checkpoint

CLASS_NAMES = ("round", "square", "other")
#: relative y1, x1, y2, x2 of the ellipses that are detected in every image
_BOXES = ((0.1, 0.1, 0.5, 0.4), (0.2, 0.5, 0.6, 0.9), (0.55, 0.1, 0.95, 0.5), (0.6, 0.55, 0.9, 0.95))
#: sizes of images whose detections are kept
_SIZES = 4096


class StandInPredictor:
    """The part of `yolact.Predictor` that the labelling pipeline uses. It ignores the number of threads."""

    batch_size = 16

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """The same four ellipses in each image, with masks of the image's own size."""
        return [fixed_detections(image.height, image.width) for image in images]


@lru_cache(maxsize=_SIZES)
def fixed_detections(height: int, width: int) -> Detections:
    """Four instances with real masks of height × width, at least 1 × 1."""
    rows, columns = np.ogrid[:height, :width]
    boxes, masks = [], []
    for top, left, bottom, right in _BOXES:
        y1, x1, y2, x2 = top * height, left * width, bottom * height, right * width
        down = (rows + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
        across = (columns + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
        masks.append(coco_mask.encode(np.asfortranarray(down**2 + across**2 <= 1, np.uint8)))
        boxes.append((x1, y1, x2, y2))
    return Detections(
        boxes=np.array(boxes, np.float32),
        scores=np.linspace(0.9, 0.6, len(masks), dtype=np.float32),
        mask_scores=None,
        labels=np.arange(len(masks)) % len(CLASS_NAMES),
        areas=np.array([int(coco_mask.area(mask)) for mask in masks], np.int64),
        masks=masks,
        height=height,
        width=width,
    )


def save_stand_in_checkpoint(path: Path) -> None:
    """Write a small checkpoint of random weights, from which a run takes its input size and class names."""
    config = replace(
        CONFIGS["yolact_mobilenetv2"],
        name="stand-in",
        input_size=96,
        class_names=CLASS_NAMES,
        fpn_channels=16,
        head_channels=16,
        protonet_channels=16,
        num_prototypes=8,
    )
    save_checkpoint(build_yolact(config), path, provenance={"data": "none: random weights, for measurements"})


#: different images in a lake of any size
ENCODINGS = 256
IMAGES_PER_SHARD = 1000


def draw_encodings(count: int = ENCODINGS, seed: int = 0) -> list[bytes]:
    """`count` JPEGs of ellipses on a gradient, 64 to 96 pixels a side; the same for the same seed."""
    rng = np.random.default_rng(seed)
    encodings = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(64, 97, 2))
        ramp = np.linspace(0, 120, width)[None, :, None] + rng.uniform(0, 60, (1, 1, 3))
        image = Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 6))):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            a, b = rng.uniform(5, 20, 2)
            draw.ellipse((x - a, y - b, x + a, y + b), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        encodings.append(file.getvalue())
    return encodings


def write_lake(folder: Path, images: int, *, images_per_shard: int = IMAGES_PER_SHARD, seed: int = 0) -> None:
    """Write tar shards `shard-NNNNN.tar` with `images` images in all, each with a name of its own."""
    folder.mkdir(parents=True)
    encodings = draw_encodings(seed=seed)
    for shard, first in enumerate(range(0, images, images_per_shard)):
        with tarfile.open(folder / f"shard-{shard:05d}.tar", "w") as tar:
            for number in range(first, min(images, first + images_per_shard)):
                data = encodings[number % len(encodings)]
                info = tarfile.TarInfo(f"image-{number:08d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


STORE_SECONDS = 1.0
PROGRESS_SECONDS = 0.2

log = logging.getLogger("jobs.scale_run")


def report_store(stop: threading.Event) -> None:
    """Log the bytes in Ray's object store, from the start of Ray until `stop`."""
    while not stop.wait(STORE_SECONDS):
        if ray.is_initialized():
            capacity = ray.cluster_resources().get("object_store_memory", 0.0)
            free = ray.available_resources().get("object_store_memory", capacity)
            log.info("object store", extra={"fields": {"store_bytes": int(capacity - free)}})


def main() -> int:
    """Label LAKE; returns the job's exit code."""
    lake, output, weights = sys.argv[1:]
    progress.LINE_SECONDS = PROGRESS_SECONDS
    # float32: the other precisions would prepare an engine, for a model that never runs
    config = LabelConfig((lake,), output, weights=weights, precision="float32", address="local", log_format="json")
    stop = threading.Event()
    reporter = threading.Thread(target=report_store, args=(stop,), daemon=True)
    reporter.start()
    try:
        end = label_lake(config, make_predictor=StandInPredictor)
        end.show()
        return end.exit_code
    finally:
        stop.set()
        # before the interpreter unloads Ray's modules
        reporter.join()


if __name__ == "__main__":
    sys.exit(main())
