"""AP of a model on a data set during training, with the predictor and the evaluation that all commands use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch.distributed

from jobs.train.broken_images import BrokenImageError, message_of, read_pixels
from jobs.train.data import ImageSet
from yolact.coco.annotations import AnnotatedImage, coco_json
from yolact.coco.evaluation import CocoScores, DetectedInstance, evaluate_instances
from yolact.config import NmsKind
from yolact.images.prepare import PreparedImage
from yolact.inference.detections import Detections
from yolact.inference.predictor import Predictor
from yolact.network.model import Yolact

#: Validation keeps every score, as the release does: anchors whose best score is at or below the config's floor are
#: dropped (0.05 in the paper's models, 0.02 in `nuclei`), but the other classes of a kept anchor count with scores
#: below it. Standard NMS cuts all pairs at the floor.
VALIDATED_SCORES_ABOVE = 0.0
#: threads that read and decode images while a GPU works; beside a CPU one is enough
_DECODERS_BESIDE_GPU = 4


def validate(
    model: Yolact,
    images: ImageSet,
    device: str,
    worker: int = 0,
    num_workers: int = 1,
    report: Callable[[int], None] | None = None,
) -> dict[str, CocoScores] | None:
    """Predict a data set and score it. Each worker predicts its share.

    Args:
        model: what to validate.
        images: the data set.
        device: where to predict.
        worker: index of this worker.
        num_workers: how many workers share the data set.
        report: is called with the number of images done, after each image of this worker.

    Returns:
        "mask" and "box" scores on the first worker, None on the others.

    Raises:
        BrokenImageError: on all workers, if an image of any of them is broken and may not be left out.
    """
    positions = range(worker, len(images.data.images), num_workers)
    found: list[DetectedInstance] = []
    broken = None
    try:
        found += detect_images(model, images, device, positions, report=report)
    except BrokenImageError as error:
        broken = message_of(error)
    if num_workers > 1:
        shares: list[tuple[list[DetectedInstance], str | None]] = [([], None)] * num_workers
        torch.distributed.all_gather_object(shares, (found, broken))
        found = [detection for share, _ in shares for detection in share]
        broken = next((message for _, message in shares if message is not None), None)
    if broken is not None:
        raise BrokenImageError(broken)
    if worker:
        return None
    return evaluate_instances(coco_json(images.data), found, max(model.config.nms.max_detections, 100))


def detect_images(
    model: Yolact,
    images: ImageSet,
    device: str,
    positions: Sequence[int],
    nms: NmsKind | None = None,
    report: Callable[[int], None] | None = None,
) -> Iterator[DetectedInstance]:
    """Detections in some images of a data set, with all the scores that validation counts, in COCO's terms."""
    predict = Predictor(model, device=device, score_threshold=VALIDATED_SCORES_ABOVE, nms=nms)
    return detect_with(predict, images, positions, report)


def detect_with(
    predict: Predictor, images: ImageSet, positions: Sequence[int], report: Callable[[int], None] | None = None
) -> Iterator[DetectedInstance]:
    """Detections of a predictor in some images of a data set, in COCO's terms. Decodes the next batch meanwhile."""
    category_ids = list(images.data.categories)
    done = 0
    for batch in _decoded_batches(predict, images, positions):
        there = [(image, prepared) for image, prepared in batch if prepared is not None]
        found = predict.predict_prepared([prepared for _, prepared in there])
        for (image, _), detections in zip(there, found, strict=True):
            yield from _in_coco_terms(image.image_id, detections, category_ids)
        for _ in batch:
            done += 1
            if report is not None:
                report(done)


DecodedBatch = list[tuple[AnnotatedImage, PreparedImage | None]]


def _decoded_batches(predict: Predictor, images: ImageSet, positions: Sequence[int]) -> Iterator[DecodedBatch]:
    """The images in batches of the predictor's size, None for broken ones that are left out.

    While a batch is used, threads read and decode the next one.

    Raises:
        BrokenImageError: if an image is broken and may not be left out.
    """

    def decode(image: AnnotatedImage) -> PreparedImage | None:
        pixels = read_pixels(images, image)
        return None if pixels is None else predict.prepare(pixels)

    records = [images.data.images[position] for position in positions]
    size = predict.batch_size
    with ThreadPoolExecutor(_DECODERS_BESIDE_GPU if predict.device.type == "cuda" else 1) as pool:

        def start(first: int) -> list[tuple[AnnotatedImage, Future[PreparedImage | None]]]:
            return [(image, pool.submit(decode, image)) for image in records[first : first + size]]

        following = start(0)
        for first in range(0, len(records), size):
            batch = [(image, decoded.result()) for image, decoded in following]
            following = start(first + size)
            yield batch


def _in_coco_terms(
    image_id: int | str, detections: Detections, category_ids: Sequence[int]
) -> Iterator[DetectedInstance]:
    for index, box in enumerate(detections.boxes_xywh.tolist()):
        yield DetectedInstance(
            image_id=image_id,
            category_id=category_ids[int(detections.labels[index])],
            score=float(detections.scores[index]),
            mask_score=None if detections.mask_scores is None else float(detections.mask_scores[index]),
            bbox=box,
            mask=detections.masks[index],
        )


def score_table(scores: dict[str, CocoScores]) -> dict[str, float]:
    """The scores that are recorded and printed, by names such as `mask_ap50`."""
    return {
        f"{kind}_{name}": getattr(result, name) for kind, result in scores.items() for name in ("ap", "ap50", "ap75")
    }
