"""What the losses compare with predictions: made once per image on the CPU, usually by the loader, then put together.

Matching looks at boxes and anchors only, never at predictions. So everything that has a number of its own (positive
anchors, masks, pixels of the crops) is counted before the network runs, and the losses of a batch need neither a loop
over its images nor a wait for a number from the GPU.

Shapes: B images, A anchors, G targets, P positive anchors, Q positives whose masks are learnt, h × w the prototypes,
h2 × w2 the semantic logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from yolact.config import YolactConfig
from yolact.geometry.boxes import encode_boxes
from yolact.geometry.masks import crop_regions, resize_masks
from yolact.network.anchors import make_anchors
from yolact.training.matching import BACKGROUND, match_anchors

NEGATIVES_PER_POSITIVE = 3
#: ground-truth masks of at most this many prototype pixels are too small to teach the rescoring net anything
MIN_RESCORED_AREA = 25


class _RequiredTarget(TypedDict):
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    is_crowd: Tensor


class Target(_RequiredTarget, total=False):
    """Ground truth of one image.

    `boxes` (G, 4) float xyxy in network-input pixels; `labels` (G,) int64 0-based; `masks` (G, h, w) bool covering the
    whole network input, at its size or already at the prototypes' size; `is_crowd` (G,) bool. G may be 0.
    `seed` (optional, int) makes the random choice of masks repeatable wherever the image is processed.
    """

    seed: int


class ImageTargets(NamedTuple):
    """What the predictions of one image are compared with, on the CPU."""

    is_background: Tensor
    """(A,) bool"""
    positives: Tensor
    """(P,) int64 anchors"""
    labels: Tensor
    """(P,) int64 0-based"""
    box_deltas: Tensor
    """(P, 4) float32, see `encode_boxes`"""
    num_negatives: int
    """hardest background anchors that enter the class loss"""
    chosen: Tensor
    """(Q,) int64 places in `positives`"""
    mask_index: Tensor
    """(Q,) int64 the mask of each"""
    regions: Tensor
    """(Q, 4) int64 x1, y1, x2, y2 in prototype pixels, ends excluded"""
    mask_weights: Tensor
    """(Q,) float32: 1 over the area of the box in prototype pixels, scaled up to make good for masks left out"""
    masks: Tensor
    """(G, h, w) bool"""
    class_masks: Tensor
    """(G, h2, w2) bool: the masks at the semantic logits' size"""
    mask_labels: Tensor
    """(G,) int64 0-based"""


class BatchTargets(NamedTuple):
    """What the predictions of a batch are compared with.

    Anchors have one number through all images: image · A + anchor.
    """

    batch_size: int
    is_background: Tensor
    """(B, A) bool"""
    positives: Tensor
    """(P,) int64 anchors"""
    labels: Tensor
    """(P,) int64 0-based"""
    box_deltas: Tensor
    """(P, 4) float32"""
    most_negatives: int
    """the largest number of hardest negatives of an image"""
    negative_slots: Tensor
    """(n,) int64 in B × most_negatives: the negatives that count, if each image's stand in a row, the hardest first"""
    counts: Tensor
    """(2,) float32: positives and images"""
    mask_anchors: Tensor
    """(Q,) int64 anchors"""
    mask_images: Tensor
    """(Q,) int64"""
    mask_index: Tensor
    """(Q,) int64 in `masks`"""
    regions: Tensor
    """(Q, 4) int64"""
    num_pixels: int
    """pixels in all regions together"""
    mask_weights: Tensor
    """(Q,) float32"""
    masks: Tensor
    """(G, h, w) bool, of all images"""
    class_masks: Tensor
    """(G, h2, w2) bool"""
    mask_images_labels: Tensor
    """(2, G) int64: image and 0-based label of each mask"""
    rescored: Tensor
    """(R,) int64 in Q: the masks that are large enough to teach the rescoring net"""
    rescored_labels: Tensor
    """(R,) int64 0-based"""
    rescored_pixels: int
    """pixels in the regions of `rescored`"""

    def to(self, device: torch.device) -> BatchTargets:
        """The same on another device. Does not wait where the tensors are in page-locked memory."""
        moved: list[Any] = [
            value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in self
        ]
        return BatchTargets(*moved)


@dataclass(frozen=True)
class TargetMaker:
    """Makes `ImageTargets`. It may be sent to loader processes.

    At most `max_masks` positive anchors of an image enter the mask loss: a random choice, and the loss is scaled up to
    make good for the others.
    """

    anchors: Tensor
    """(A, 4) cx, cy, w, h relative, on the CPU"""
    input_size: int
    prototype_size: int
    semantic_size: int
    max_masks: int

    @classmethod
    def of(cls, config: YolactConfig) -> TargetMaker:
        """For a model of this config."""
        return cls(
            make_anchors(config),
            config.input_size,
            config.prototype_size,
            config.level_size(config.protonet_level),
            config.max_masks_per_image,
        )

    def __call__(self, target: Target) -> ImageTargets:
        """Separate objects from crowds, match the anchors, choose masks."""
        # in double precision: see `yolact.training.matching.anchor_corners` for what a last bit decides
        boxes = (target["boxes"].cpu().double() / self.input_size).float()
        crowd = target["is_crowd"].cpu().bool()
        labels, masks = target["labels"].cpu()[~crowd], target["masks"].cpu().bool()[~crowd]
        boxes, crowd_boxes = boxes[~crowd], boxes[crowd]
        matches = match_anchors(self.anchors, boxes, labels, crowd_boxes)
        positives = matches.positive.nonzero().squeeze(1)
        target_index = matches.target_index[positives]
        is_background = matches.classes == BACKGROUND
        chosen, scale = self._choose(len(positives), target.get("seed"))
        side = self.prototype_size
        areas = ((boxes[:, 2:] - boxes[:, :2]) * side).prod(dim=1)
        mask_index = target_index[chosen]
        return ImageTargets(
            is_background,
            positives,
            labels[target_index],
            encode_boxes(boxes[target_index], self.anchors[positives]),
            min(NEGATIVES_PER_POSITIVE * len(positives), int(is_background.sum())),
            chosen,
            mask_index,
            crop_regions(boxes, side, side)[mask_index],
            scale / areas[mask_index],
            resize_masks(masks, side, side),
            resize_masks(masks, self.semantic_size, self.semantic_size),
            labels,
        )

    def _choose(self, count: int, seed: int | None) -> tuple[Tensor, float]:
        """Places (Q,) among so many positives, and the factor that makes good for the others."""
        if count <= self.max_masks:
            return torch.arange(count), 1.0
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return torch.randperm(count, generator=generator)[: self.max_masks], count / self.max_masks


def batch_targets(images: Sequence[ImageTargets]) -> BatchTargets:
    """Put the targets of a batch together."""
    anchors = len(images[0].is_background)
    numbers = torch.arange(len(images))
    negatives = torch.tensor([image.num_negatives for image in images])
    most = int(negatives.max())
    first_mask = _starts([len(image.masks) for image in images])
    mask_images = numbers.repeat_interleave(torch.tensor([len(image.chosen) for image in images]))
    mask_index = torch.cat([image.mask_index + first for image, first in zip(images, first_mask, strict=True)])
    regions = torch.cat([image.regions for image in images])
    pixels = (regions[:, 2:] - regions[:, :2]).prod(dim=1)
    masks = torch.cat([image.masks for image in images])
    large = masks.flatten(1).sum(dim=1) > MIN_RESCORED_AREA
    rescored = large[mask_index].nonzero().squeeze(1)
    mask_labels = torch.cat([image.mask_labels for image in images])
    counted = numbers.repeat_interleave(torch.tensor([len(image.masks) for image in images]))
    return BatchTargets(
        batch_size=len(images),
        is_background=torch.stack([image.is_background for image in images]),
        positives=torch.cat([image.positives + number * anchors for number, image in enumerate(images)]),
        labels=torch.cat([image.labels for image in images]),
        box_deltas=torch.cat([image.box_deltas for image in images]),
        most_negatives=most,
        negative_slots=(torch.arange(most) < negatives[:, None]).flatten().nonzero().squeeze(1),
        counts=torch.tensor([sum(len(image.positives) for image in images), len(images)], dtype=torch.float32),
        mask_anchors=torch.cat(
            [image.positives[image.chosen] + number * anchors for number, image in enumerate(images)]
        ),
        mask_images=mask_images,
        mask_index=mask_index,
        regions=regions,
        num_pixels=int(pixels.sum()),
        mask_weights=torch.cat([image.mask_weights for image in images]),
        masks=masks,
        class_masks=torch.cat([image.class_masks for image in images]),
        mask_images_labels=torch.stack([counted, mask_labels]),
        rescored=rescored,
        rescored_labels=mask_labels[mask_index[rescored]],
        rescored_pixels=int(pixels[rescored].sum()),
    )


def _starts(counts: Sequence[int]) -> list[int]:
    """Where each part starts if parts of these lengths stand in a row."""
    return [sum(counts[:number]) for number in range(len(counts))]
