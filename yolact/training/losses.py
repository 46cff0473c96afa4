"""The training losses (paper section 3.2 and 3.4; YOLACT++ section 6 for mask rescoring).

B images, A anchors, C classes, K prototypes, G targets, P positive anchors of one image.
The formulas and weights are the release's. Sums run over the batch and are divided by its number of positives, the
semantic loss by its number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from yolact.geometry.boxes import encode_boxes
from yolact.geometry.masks import resize_masks
from yolact.network.model import RawPredictions, Yolact
from yolact.training.mask_losses import mask_iou_loss, mask_loss
from yolact.training.matching import BACKGROUND, Matches, match_anchors

CLASS_WEIGHT = 1.0
BOX_WEIGHT = 1.5
MASK_WEIGHT = 6.125
SEMANTIC_WEIGHT = 1.0
MASK_IOU_WEIGHT = 25.0
NEGATIVES_PER_POSITIVE = 3


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
    """Ground truth of one image as the losses use it: without its crowds, boxes xyxy relative to the image."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    matches: Matches
    seed: int | None


class YolactWithLoss(nn.Module):
    """The network together with its losses: the module that DDP wraps.

    At most `max_masks_per_image` (of the model's config) positive anchors of an image enter the mask loss: a random
    choice, and the loss is scaled up to make good for the others.

    Args:
        model: the network; its semantic branch must be on while training if the config has one.
        mean_over_workers: maps counts (n,) of this worker to their means over all workers, see `mean_over_workers`.
            DDP averages gradients, so dividing by these means makes the update that of one worker with the whole
            batch, also where the workers' shares of the batch differ. None: there is one worker.
    """

    def __init__(self, model: Yolact, mean_over_workers: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.mean_over_workers = mean_over_workers

    def forward(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Losses of a batch, weights applied; their sum is what is minimised.

        Args:
            images: (B, 3, S, S) normalised.
            targets: one per image.

        Returns:
            Scalars `class`, `box`, `mask`, then `semantic` and `mask_iou` where the model has these parts.

        Raises:
            ValueError: if the numbers of images and targets differ.
        """
        if len(targets) != images.shape[0]:
            raise ValueError(f"{images.shape[0]} images but {len(targets)} targets; give one target per image")
        raw = self.model(images)
        # autocast ends here: softmax over thousands of anchors and BCE sums need float32
        with torch.autocast(images.device.type, enabled=False):
            semantic = None if raw.semantic_logits is None else raw.semantic_logits.float()
            raw = RawPredictions(
                raw.box_deltas.float(),
                raw.class_logits.float(),
                raw.mask_coefficients.float(),
                raw.prototypes.float(),
                semantic,
            )
            return self.losses(raw, targets, images.shape[-1])

    def losses(self, raw: RawPredictions, targets: list[Target], input_size: int) -> dict[str, Tensor]:
        """The losses of raw predictions; see `forward`."""
        anchors = self.model.anchors.to(raw.box_deltas.device)
        images = [prepare_target(target, anchors, input_size) for target in targets]
        classes = torch.stack([image.matches.classes for image in images])
        positives = (classes > BACKGROUND).sum()
        counts = torch.stack([positives, positives.new_tensor(len(images))]).to(torch.float32)
        if self.mean_over_workers is not None:
            counts = self.mean_over_workers(counts)
        count, batch_size = counts[0], counts[1]
        # the mean over N workers is below 1 where the whole batch has fewer than N positives: then it is right too
        count = torch.where(count > 0, count, 1.0)

        losses = {
            "class": CLASS_WEIGHT * class_loss(raw.class_logits, classes) / count,
            "box": BOX_WEIGHT * box_loss(raw.box_deltas, anchors, images) / count,
            "mask": MASK_WEIGHT * self._mask_loss(raw, images) / count,
        }
        if raw.semantic_logits is not None:
            losses["semantic"] = SEMANTIC_WEIGHT * semantic_loss(raw.semantic_logits, images) / batch_size
        rescoring = self.model.mask_scoring
        if rescoring is not None:
            losses["mask_iou"] = MASK_IOU_WEIGHT * self._mask_iou_loss(rescoring, raw, images) / count
        return losses

    def _mask_loss(self, raw: RawPredictions, images: list[ImageTargets]) -> Tensor:
        total = raw.prototypes.sum() * 0 + raw.mask_coefficients.sum() * 0
        for prototypes, coefficients, image in zip(raw.prototypes, raw.mask_coefficients, images, strict=True):
            chosen, scale = self._choose_positives(image)
            target_index = image.matches.target_index[chosen]
            total = total + scale * mask_loss(prototypes, coefficients[chosen], image.boxes, image.masks, target_index)
        return total

    def _mask_iou_loss(self, rescoring: nn.Module, raw: RawPredictions, images: list[ImageTargets]) -> Tensor:
        total = raw.prototypes.sum() * 0
        for prototypes, coefficients, image in zip(raw.prototypes, raw.mask_coefficients, images, strict=True):
            chosen, _ = self._choose_positives(image)
            total = total + mask_iou_loss(
                rescoring,
                prototypes,
                coefficients[chosen],
                image.boxes,
                image.masks,
                image.labels,
                image.matches.target_index[chosen],
            )
        return total

    def _choose_positives(self, image: ImageTargets) -> tuple[Tensor, float]:
        """Indices (P,) of the anchors whose masks are learnt, and the factor that makes good for the others."""
        positive = image.matches.positive.nonzero().squeeze(1)
        limit = self.model.config.max_masks_per_image
        if len(positive) <= limit:
            return positive, 1.0
        generator = None
        if image.seed is not None:
            generator = torch.Generator().manual_seed(image.seed)
        order = torch.randperm(len(positive), generator=generator)[:limit]
        return positive[order.to(positive.device)], len(positive) / limit


def mean_over_workers(counts: Tensor) -> Tensor:
    """The mean of a tensor over all workers of the process group; a collective call."""
    dist.all_reduce(counts)
    return counts / dist.get_world_size()


def prepare_target(target: Target, anchors: Tensor, input_size: int) -> ImageTargets:
    """Separate objects from crowds and match the anchors.

    Args:
        target: see `Target`.
        anchors: (A, 4) cx, cy, w, h relative.
        input_size: side of the network input in pixels, the frame of the target's boxes.
    """
    device = anchors.device
    # in double precision: see `yolact.training.matching.anchor_corners` for what a last bit decides
    boxes = (target["boxes"].to(device, torch.float64) / input_size).to(torch.float32)
    labels = target["labels"].to(device)
    crowd = target["is_crowd"].to(device, torch.bool)
    matches = match_anchors(anchors, boxes[~crowd], labels[~crowd], boxes[crowd])
    masks = target["masks"].to(device)[~crowd]
    return ImageTargets(boxes[~crowd], labels[~crowd], masks, matches, target.get("seed"))


def class_loss(class_logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax cross-entropy of the positives and of the hardest negatives, 3 per positive and image (OHEM), summed.

    Args:
        class_logits: (B, A, C + 1), background first.
        classes: (B, A) int64 as in `Matches.classes`.
    """
    background_loss = class_logits.detach().logsumexp(dim=2) - class_logits.detach()[..., BACKGROUND]
    background_loss = background_loss.masked_fill(classes != BACKGROUND, -1.0)
    chosen = classes > BACKGROUND
    for losses, positive, image_classes, keep in zip(background_loss, chosen.clone(), classes, chosen, strict=True):
        available = int((image_classes == BACKGROUND).sum())
        wanted = min(NEGATIVES_PER_POSITIVE * int(positive.sum()), available)
        keep[losses.topk(wanted).indices] = True
    return F.cross_entropy(class_logits[chosen], classes[chosen], reduction="sum")


def box_loss(box_deltas: Tensor, anchors: Tensor, images: list[ImageTargets]) -> Tensor:
    """Smooth L1 between predicted and SSD-encoded offsets of the positive anchors, summed.

    Args:
        box_deltas: (B, A, 4).
        anchors: (A, 4) cx, cy, w, h relative.
        images: one per image of the batch.
    """
    total = box_deltas.sum() * 0
    for deltas, image in zip(box_deltas, images, strict=True):
        positive = image.matches.positive
        wanted = encode_boxes(image.boxes[image.matches.target_index[positive]], anchors[positive])
        total = total + F.smooth_l1_loss(deltas[positive], wanted, reduction="sum")
    return total


def semantic_loss(semantic_logits: Tensor, images: list[ImageTargets]) -> Tensor:
    """Per-pixel, per-class BCE against the union of each class's masks, summed over images, averaged over map area.

    Args:
        semantic_logits: (B, C, h, w).
        images: one per image of the batch.
    """
    height, width = semantic_logits.shape[-2:]
    wanted = torch.zeros_like(semantic_logits)
    for class_maps, image in zip(wanted, images, strict=True):
        if len(image.labels):
            class_maps.index_add_(0, image.labels, resize_masks(image.masks, height, width).to(class_maps.dtype))
    wanted = (wanted > 0).to(semantic_logits.dtype)
    total = F.binary_cross_entropy_with_logits(semantic_logits, wanted, reduction="sum")
    return total / (height * width)
