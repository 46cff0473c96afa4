"""Mask loss and mask-rescoring loss of a batch (paper section 3.2, YOLACT++ section 6).

B images, K prototypes, G targets, Q positive anchors whose masks are learnt. Masks are compared at the prototypes'
resolution h × w.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from yolact.geometry.masks import RegionPixels, region_pixels
from yolact.training.targets import BatchTargets


def mask_loss(prototypes: Tensor, coefficients: Tensor, targets: BatchTargets) -> Tensor:
    """Sum over positives of the pixel BCE inside the ground-truth crop ÷ the box's area in prototype pixels.

    Only the pixels inside the crops are computed: hundreds of small objects cost no more than a few large ones.

    Args:
        prototypes: (B, K, h, w).
        coefficients: (Q, K) of the positive anchors.
        targets: of the batch, on the same device.

    Returns:
        A scalar, 0 where Q = 0.
    """
    crops = _pixels_of(targets.regions, targets.num_pixels)
    # BCE on probabilities, not on logits: the release clamps the logarithm of saturated probabilities, and its losses
    # are only met by doing the same
    probability = _assemble_pixels(prototypes, coefficients, targets.mask_images, crops).sigmoid()
    wanted = targets.masks[targets.mask_index[crops.instance], crops.row, crops.column]
    # the kernel would stop the process at a NaN; here NaN goes on into the loss, where training can name it
    defined = probability.nan_to_num(nan=0.5)
    pixel_loss = F.binary_cross_entropy(defined, wanted.to(probability.dtype), reduction="none")
    return (pixel_loss * targets.mask_weights[crops.instance]).sum() + 0 * probability.sum()


def _pixels_of(regions: Tensor, count: int) -> RegionPixels:
    first, last = regions.split(2, dim=1)
    return region_pixels(first, last, count)


def _assemble_pixels(prototypes: Tensor, coefficients: Tensor, images: Tensor, crops: RegionPixels) -> Tensor:
    """The mask logits (N,) of the pixels of crops. `images` (Q,) tells whose prototypes each crop takes."""
    count, height, width = prototypes.shape[1:]
    place = (images[crops.instance] * height + crops.row) * width + crops.column
    pixels = F.embedding(place, prototypes.permute(0, 2, 3, 1).reshape(-1, count))
    return (pixels * coefficients.index_select(0, crops.instance)).sum(dim=1)


def mask_iou_loss(rescoring: nn.Module, prototypes: Tensor, coefficients: Tensor, targets: BatchTargets) -> Tensor:
    """Smooth L1 between the rescoring net's and the true IoU of each positive's predicted mask, summed (YOLACT++).

    Args:
        rescoring: maps (R, h, w) cropped probabilities to (R, C) IoUs.
        prototypes: (B, K, h, w).
        coefficients: (Q, K) of the positive anchors.
        targets: of the batch, on the same device.

    Returns:
        A scalar; 0 where no ground-truth mask has more than 25 px at prototype resolution.
    """
    count = len(targets.rescored)
    if not count:
        return sum((parameter.sum() * 0 for parameter in rescoring.parameters()), prototypes.sum() * 0)
    crops = _pixels_of(targets.regions[targets.rescored], targets.rescored_pixels)
    chosen = coefficients[targets.rescored]
    logits = _assemble_pixels(prototypes, chosen, targets.mask_images[targets.rescored], crops)
    probability = prototypes.new_zeros(count, *prototypes.shape[2:])
    probability[crops.instance, crops.row, crops.column] = logits.sigmoid()
    predicted = probability.detach() > 0.5
    wanted = targets.masks[targets.mask_index[targets.rescored]]
    true_iou = (predicted & wanted).sum(dim=(1, 2)) / (predicted | wanted).sum(dim=(1, 2))
    iou = rescoring(probability)
    labels = targets.rescored_labels[:, None]
    return F.smooth_l1_loss(iou.gather(1, labels).squeeze(1), true_iou, reduction="sum")
