"""Raw predictions of a batch → detections, all images at once: for GPUs.

Of the results one copy goes to the host. The GPU is waited for four times: for the number of detections, of mask cells
and of mask changes, and for that copy.

Shapes: B images, N detections at most of an image, D detections in all; h × w the prototypes' size, K of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from yolact.geometry.batch_outlines import flips_of_batch, stride_of
from yolact.geometry.batch_rle import pack_flips
from yolact.geometry.boxes import relative_to_sizes
from yolact.geometry.masks import crop_masks, crop_regions
from yolact.inference.batch_detect import BatchInstances, detect_batch, fits, most_detections
from yolact.inference.detections import DetectionRules, Detections
from yolact.inference.postprocess import detect
from yolact.network.model import RawPredictions, Yolact

#: values of masks that are made together, taken or not: 256 MiB
_MASK_VALUES_AT_ONCE = 1 << 26


def postprocess_batch(
    model: Yolact, raw: RawPredictions, sizes: Sequence[tuple[int, int]], rules: DetectionRules
) -> list[Detections] | None:
    """The detections of the first images of a batch.

    Args:
        model: gives the anchors, and says whether masks are cropped and rescored.
        raw: float32; the batch may be longer than `sizes`, filled up with blank images.
        sizes: (H, W) of the images.

    Returns:
        None where the outline of a mask needs more corrections than rounding has ever made necessary: then the images
        are computed one by one.
    """
    found, counts = _find(model.anchors, raw, rules, len(sizes))
    height, width = raw.prototypes.shape[2:]
    taken = torch.tensor(counts).to(raw.prototypes.device, non_blocking=True)
    image = torch.arange(len(counts), device=taken.device).repeat_interleave(taken, output_size=sum(counts))
    place = torch.arange(len(image), device=taken.device) - (taken.cumsum(0) - taken)[image]
    scores, labels, boxes = found.scores[image, place], found.labels[image, place], found.boxes_relative[image, place]
    logits = _mask_logits(found.coefficients, raw.prototypes, image, place, counts)
    if model.config.crop_masks:
        regions = crop_regions(boxes, height, width)
    else:
        regions = image.new_tensor([[0, 0, width, height]]).expand(len(image), 4)
    mask_scores = _mask_scores(model, logits, regions, scores, labels, counts)
    flips = flips_of_batch(logits, regions, image, sizes)
    size_of = torch.tensor(sizes).to(image.device, non_blocking=True)[image]
    runs = pack_flips(flips.keys, size_of.prod(dim=1), stride_of(sizes))
    boxes = relative_to_sizes(boxes, size_of)
    floats = torch.cat([boxes, scores[:, None], mask_scores[:, None]], dim=1)
    numbers = torch.cat([labels, runs.areas, runs.lengths, flips.exact.long()[None]])
    # bytes can be put one after the other whatever they mean
    host = _to_host(torch.cat([numbers.view(torch.uint8), floats.view(torch.uint8).flatten(), runs.characters]))
    return _detections(host, sizes, counts, rescored=model.mask_scoring is not None)


def _mask_scores(
    model: Yolact, logits: Tensor, regions: Tensor, scores: Tensor, labels: Tensor, counts: list[int]
) -> Tensor:
    """(D,) class scores, or where the model rescores masks the product of class score and predicted IoU."""
    if model.mask_scoring is None:
        return scores
    # by image: the bits of a convolution depend on how many masks it takes together
    parts = crop_masks(torch.sigmoid(logits), regions).split(counts)
    ious = torch.cat([model.mask_scoring(part) for part in parts])
    return scores * ious.gather(1, labels[:, None])[:, 0]


def _detections(
    host: np.ndarray, sizes: Sequence[tuple[int, int]], counts: list[int], *, rescored: bool
) -> list[Detections] | None:
    """Takes apart the bytes that came from the device; None where they say that an outline may be off.

    They are D labels, D areas, D lengths and one flag, all int64; D × 6 float32: box, score, mask score; then text.
    """
    total = sum(counts)
    end_of_numbers = 8 * (3 * total + 1)
    end_of_floats = end_of_numbers + 4 * 6 * total
    numbers = host[:end_of_numbers].view(np.int64)
    if not numbers[-1]:
        return None
    # copies: a detection that is kept must not keep the memory of its whole batch
    labels, areas, lengths = numbers[:-1].reshape(3, total).copy()
    values = host[end_of_numbers:end_of_floats].view(np.float32).reshape(total, 6).copy()
    texts = _split_text(host[end_of_floats:], lengths)
    detections, begin = [], 0
    for (height, width), count in zip(sizes, counts, strict=True):
        own = slice(begin, begin + count)
        begin += count
        detections.append(
            Detections(
                boxes=values[own, :4],
                scores=values[own, 4],
                mask_scores=values[own, 5] if rescored else None,
                labels=labels[own],
                areas=areas[own],
                masks=[{"size": [height, width], "counts": text} for text in texts[own]],
                height=height,
                width=width,
            )
        )
    return detections


def _split_text(characters: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    """The run lengths of each mask, which stand one after the other; more characters may follow."""
    ends = np.cumsum(lengths).tolist()
    text = characters[: ends[-1] if ends else 0].tobytes()
    return [text[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]


def _find(anchors: Tensor, raw: RawPredictions, rules: DetectionRules, images: int) -> tuple[BatchInstances, list[int]]:
    """The detections of the first images, and how many each one has."""
    most = most_detections(rules)
    if fits(rules):
        found = detect_batch(raw, anchors, rules)
        counts, settled = torch.stack([found.valid.sum(dim=1), found.settled.long()])[:, :images].tolist()
    else:
        batch, _, prototypes = raw.mask_coefficients.shape
        new = raw.box_deltas.new_zeros
        empty = new((batch, most))
        found = BatchInstances(
            new((batch, most, 4)), empty, empty.long(), new((batch, most, prototypes)), empty.bool(), empty[:, 0].bool()
        )
        counts, settled = [0] * images, [0] * images
    for index in range(images):
        if settled[index]:
            continue
        one = detect(raw, index, anchors, rules)
        counts[index] = min(most, len(one.scores))
        for places, values in zip(found[:4], one, strict=True):
            places[index, : counts[index]] = values[: counts[index]]
    return found, counts


def _mask_logits(coefficients: Tensor, prototypes: Tensor, image: Tensor, place: Tensor, counts: list[int]) -> Tensor:
    """(D, h, w) of the detections that stand at `place` of `image`, in the order of the images.

    The product is made for all N places of an image, taken or not. So the bits of a mask do not depend on how many
    others there are.
    """
    height, width = prototypes.shape[2:]
    at_once = max(1, _MASK_VALUES_AT_ONCE // (coefficients.shape[1] * height * width))
    parts, begin = [], 0
    for first in range(0, len(counts), at_once):
        end = begin + sum(counts[first : first + at_once])
        some = slice(first, first + at_once)
        logits = torch.bmm(coefficients[some], prototypes[some].flatten(2))
        parts.append(logits[image[begin:end] - first, place[begin:end]])
        begin = end
    return torch.cat(parts).view(-1, height, width)


def _to_host(values: Tensor) -> np.ndarray:
    """One copy to the host; on a GPU through page-locked memory, which is several times faster."""
    if values.device.type != "cuda":
        return values.numpy()
    target = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    target.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return target.numpy()
