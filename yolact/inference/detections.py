"""The detections of an image, and the rules that say what counts as one.

Shapes: N detections, H × W the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolact.config import NmsConfig
from yolact.geometry.rle import Rle, decode


@dataclass(frozen=True)
class DetectionRules:
    """What counts as a detection."""

    settings: NmsConfig
    """NMS: its kind and its limits."""
    score_threshold: float = 0.0
    """Detections with a score at or below it are left out."""
    limit: int | None = None
    """At most so many detections an image; None for as many as `settings` allows."""
    class_thresholds: tuple[float, ...] | None = None
    """For each class a threshold of its own, none of them below `score_threshold`; `math.inf` leaves a class out."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The instances of one image in its own pixels, best score first; arrays have no rows where nothing was found."""

    boxes: np.ndarray
    """(N, 4) float32 xyxy, within the image."""
    scores: np.ndarray
    """(N,) float32 class probabilities, falling."""
    mask_scores: np.ndarray | None
    """(N,) float32 score × predicted mask IoU; None without mask rescoring."""
    labels: np.ndarray
    """(N,) int64, 0-based."""
    areas: np.ndarray
    """(N,) int64 mask areas in pixels; 0 for an empty mask."""
    masks: list[Rle]
    """N COCO RLE dicts of size [height, width]."""
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes_xywh(self) -> np.ndarray:
        """(N, 4) float32 COCO boxes: x, y of the upper left corner, width, height."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool mask of one instance."""
        return decode(self.masks[index])
