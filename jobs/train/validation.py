"""AP of a model on a data set while it trains, by the same predictor and the same evaluation as everything else."""

from __future__ import annotations

from collections.abc import Iterator

import torch.distributed

from jobs.train.data import ImageSet
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import CocoScores, DetectedInstance, evaluate_instances
from yolact.config import NmsKind
from yolact.images.decode import decode_image
from yolact.inference.predictor import Predictor
from yolact.network.model import Yolact


def validate(
    model: Yolact, images: ImageSet, device: str, worker: int = 0, num_workers: int = 1
) -> dict[str, CocoScores] | None:
    """Predict a data set, each worker its share, and score it; the scores are on the first worker, others get None."""
    found = list(detect_images(model, images, device, range(worker, len(images.data.images), num_workers)))
    if num_workers > 1:
        shares: list[list[DetectedInstance]] = [[] for _ in range(num_workers)]
        torch.distributed.all_gather_object(shares, found)
        found = [detection for share in shares for detection in share]
    if worker:
        return None
    return evaluate_instances(coco_json(images.data), found, max(model.config.nms.max_detections, 100))


def detect_images(
    model: Yolact, images: ImageSet, device: str, positions: range, nms: NmsKind | None = None
) -> Iterator[DetectedInstance]:
    """Detections above the config's score floor in some images of a data set, in COCO's terms."""
    predict = Predictor(model, device=device, score_threshold=model.config.nms.score_floor, nms=nms)
    return detect_with(predict, images, positions)


def detect_with(predict: Predictor, images: ImageSet, positions: range) -> Iterator[DetectedInstance]:
    """As `detect_images`, by a predictor of the caller's."""
    category_ids = list(images.data.categories)
    for position in positions:
        image = images.data.images[position]
        (detections,) = predict([decode_image(images.read_bytes(image.file_name))])
        for index, box in enumerate(detections.boxes_xywh.tolist()):
            yield DetectedInstance(
                image_id=image.image_id,
                category_id=category_ids[int(detections.labels[index])],
                score=float(detections.scores[index]),
                mask_score=None if detections.mask_scores is None else float(detections.mask_scores[index]),
                bbox=box,
                mask=detections.masks[index],
            )


def score_table(scores: dict[str, CocoScores]) -> dict[str, float]:
    """The numbers worth a curve."""
    return {
        f"{kind}_{name}": getattr(result, name) for kind, result in scores.items() for name in ("ap", "ap50", "ap75")
    }
