"""Drawn ground truth, and detections with the mistakes of a network.

They are moved, doubled, of another class, where nothing is, or not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from yolact.coco.evaluation import DetectedInstance

NAMES = ("person", "dog", "traffic light", "cat")
#: no object and no detection has this class
UNUSED = "unused"


def rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO RLE of a (height, width) mask, with its counts as text."""
    encoded = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def ellipse(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    cy, cx, ry, rx = rng.uniform([0, 0, 4, 4], [height, width, height / 4, width / 4])
    mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    mask[int(rng.integers(height)), int(rng.integers(width))] = True
    return mask


def drawn_truth(seed: int, images: int = 12, crowds: bool = True) -> dict[str, Any]:
    """A COCO instances object of ellipses: one class has objects in no image, and some objects are crowd regions."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        for _ in range(int(rng.integers(0, 7))):
            mask = ellipse(rng, 60, 80)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([3, 5, 8])),
                    "bbox": rle_tools.toBbox(rle(mask)).tolist(),
                    "area": float(mask.sum()),
                    "iscrowd": int(crowds and rng.random() < 0.1),
                    "segmentation": rle(mask),
                }
            )
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in range(1, images + 1)],
        "categories": [
            {"id": category_id, "name": name}
            for category_id, name in zip((3, 5, 8, 9, 11), (*NAMES, UNUSED), strict=True)
        ],
        "annotations": annotations,
    }


def imperfect_detections(truth: dict[str, Any], seed: int) -> list[DetectedInstance]:
    """Detections of most objects and of nothing. Many scores are equal."""
    rng = np.random.default_rng(seed)
    categories = [category["id"] for category in truth["categories"] if category["name"] != UNUSED]
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    found: list[DetectedInstance] = []

    def add(image_id: int, category_id: int, mask: np.ndarray, score: float) -> None:
        if mask.any():
            encoded = rle(mask)
            rounded = float(np.float32(round(score, 2) if rng.random() < 0.5 else score))
            found.append(
                DetectedInstance(image_id, category_id, rounded, None, rle_tools.toBbox(encoded).tolist(), encoded)
            )

    for entry in truth["annotations"]:
        mask = rle_tools.decode(entry["segmentation"]).astype(bool)
        far = max(1, int(np.sqrt(mask.sum()) / 5))
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            moved = np.roll(mask, tuple(rng.integers(-far, far + 1, 2)), (0, 1))
            category_id = entry["category_id"] if rng.random() < 0.85 else int(rng.choice(categories))
            add(entry["image_id"], category_id, moved, rng.beta(4, 2))
    for image_id, (height, width) in sizes.items():
        for _ in range(int(rng.integers(0, 3))):
            add(image_id, int(rng.choice(categories)), ellipse(rng, height, width), rng.beta(2, 4))
    return found
