"""A stand-in for the model: fixed detections at the cost of looking them up, and the checkpoint that goes with it.

It is handed to `jobs.labelling.run.label_lake` in the place of the real predictor; no option of the command line does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from yolact.config import CONFIGS
from yolact.predictor import Detections
from yolact.preprocess import PreparedImage

CLASS_NAMES = ("round", "square", "other")
#: relative y1, x1, y2, x2 of the ellipses that every image is said to show
_BOXES = ((0.1, 0.1, 0.5, 0.4), (0.2, 0.5, 0.6, 0.9), (0.55, 0.1, 0.95, 0.5), (0.6, 0.55, 0.9, 0.95))
#: sizes of images whose detections are kept
_SIZES = 4096


class StandInPredictor:
    """Has of `yolact.Predictor` what the labelling pipeline uses; the number of threads means nothing to it."""

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
    """A small checkpoint of random weights: it gives a run its input size and its class names."""
    from yolact.checkpoint import save_checkpoint
    from yolact.model import build_yolact

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
