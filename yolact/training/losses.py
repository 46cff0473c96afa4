"""The training losses (paper section 3.2 and 3.4; YOLACT++ section 6 for mask rescoring).

B images, A anchors, C classes, K prototypes, P positive anchors of the batch.
The formulas and weights are the release's. Sums run over the batch and are divided by its number of positives, the
semantic loss by its number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from yolact.network.model import RawPredictions, Yolact
from yolact.training.mask_losses import mask_iou_loss, mask_loss
from yolact.training.matching import BACKGROUND
from yolact.training.targets import BatchTargets, Target, TargetMaker, batch_targets

__all__ = ["Target", "YolactWithLoss", "mean_over_workers"]

CLASS_WEIGHT = 1.0
BOX_WEIGHT = 1.5
MASK_WEIGHT = 6.125
SEMANTIC_WEIGHT = 1.0
MASK_IOU_WEIGHT = 25.0


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
        self._make_targets = TargetMaker.of(model.config)

    def forward(self, images: Tensor, targets: Sequence[Target] | BatchTargets) -> dict[str, Tensor]:
        """Losses of a batch, weights applied; their sum is what is minimised.

        Args:
            images: (B, 3, S, S) normalised.
            targets: one per image; or what `batch_targets` made of them, on the device of the images, which saves work
                here.

        Returns:
            Scalars `class`, `box`, `mask`, then `semantic` and `mask_iou` where the model has these parts.

        Raises:
            ValueError: if the numbers of images and targets differ.
        """
        count = targets.batch_size if isinstance(targets, BatchTargets) else len(targets)
        if count != images.shape[0]:
            raise ValueError(f"{images.shape[0]} images but {count} targets; give one target per image")
        if not isinstance(targets, BatchTargets):
            targets = batch_targets([self._make_targets(target) for target in targets]).to(images.device)
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
            return self.losses(raw, targets)

    def losses(self, raw: RawPredictions, targets: BatchTargets) -> dict[str, Tensor]:
        """The losses of raw predictions; see `forward`. Never waits for the device."""
        counts = targets.counts if self.mean_over_workers is None else self.mean_over_workers(targets.counts)
        positives, batch_size = counts.unbind()
        # the mean over N workers is below 1 where the whole batch has fewer than N positives: then it is right too
        positives = torch.where(positives > 0, positives, 1.0)
        coefficients = raw.mask_coefficients.flatten(0, 1).index_select(0, targets.mask_anchors)
        losses = {
            "class": CLASS_WEIGHT * class_loss(raw.class_logits, targets) / positives,
            "box": BOX_WEIGHT * box_loss(raw.box_deltas, targets) / positives,
            "mask": MASK_WEIGHT * mask_loss(raw.prototypes, coefficients, targets) / positives,
        }
        # every output has a gradient, also where nothing is positive, and one that is not a number shows in the loss
        losses["mask"] = losses["mask"] + 0 * (raw.prototypes.sum() + raw.mask_coefficients.sum())
        if raw.semantic_logits is not None:
            losses["semantic"] = SEMANTIC_WEIGHT * semantic_loss(raw.semantic_logits, targets) / batch_size
        rescoring = self.model.mask_scoring
        if rescoring is not None:
            iou_loss = mask_iou_loss(rescoring, raw.prototypes, coefficients, targets)
            losses["mask_iou"] = MASK_IOU_WEIGHT * iou_loss / positives
        return losses


def mean_over_workers(counts: Tensor) -> Tensor:
    """The mean of a tensor over all workers of the process group; a collective call."""
    total = counts.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def class_loss(class_logits: Tensor, targets: BatchTargets) -> Tensor:
    """Softmax cross-entropy of the positives and of the hardest negatives, 3 per positive and image (OHEM), summed.

    Args:
        class_logits: (B, A, C + 1), background first.
        targets: of the batch, on the same device.
    """
    detached = class_logits.detach()
    background_loss = detached.logsumexp(dim=2) - detached[..., BACKGROUND]
    background_loss = torch.where(targets.is_background, background_loss, -1.0)
    hardest = background_loss.topk(targets.most_negatives, dim=1).indices
    first = torch.arange(len(hardest), device=hardest.device)[:, None] * class_logits.shape[1]
    negatives = (hardest + first).flatten().index_select(0, targets.negative_slots)
    chosen = class_logits.flatten(0, 1).index_select(0, torch.cat([targets.positives, negatives]))
    classes = torch.cat([targets.labels + 1, torch.full_like(negatives, BACKGROUND)])
    return F.cross_entropy(chosen, classes, reduction="sum")


def box_loss(box_deltas: Tensor, targets: BatchTargets) -> Tensor:
    """Smooth L1 between predicted and SSD-encoded offsets of the positive anchors, summed.

    Args:
        box_deltas: (B, A, 4).
        targets: of the batch, on the same device.
    """
    deltas = box_deltas.flatten(0, 1).index_select(0, targets.positives)
    # every output has a gradient, also where nothing is positive
    return F.smooth_l1_loss(deltas, targets.box_deltas, reduction="sum") + 0 * box_deltas.sum()


def semantic_loss(semantic_logits: Tensor, targets: BatchTargets) -> Tensor:
    """Per-pixel, per-class BCE against the union of each class's masks, summed over images, averaged over map area.

    Args:
        semantic_logits: (B, C, h, w).
        targets: of the batch, on the same device.
    """
    images, labels = targets.mask_images_labels
    wanted = torch.zeros_like(semantic_logits).flatten(0, 1)
    wanted.index_add_(0, images * semantic_logits.shape[1] + labels, targets.class_masks.to(wanted.dtype))
    wanted = (wanted > 0).to(semantic_logits.dtype).view_as(semantic_logits)
    total = F.binary_cross_entropy_with_logits(semantic_logits, wanted, reduction="sum")
    return total / (semantic_logits.shape[2] * semantic_logits.shape[3])
