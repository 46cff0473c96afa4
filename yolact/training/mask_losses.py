"""Mask loss and mask-rescoring loss of one image (paper section 3.2, YOLACT++ section 6).

K prototypes, G targets, P positive anchors. Masks are compared at the prototypes' resolution h × w.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from yolact.geometry.masks import RegionPixels, crop_pixels, resize_masks

#: ground-truth masks of at most this many prototype pixels are too small to teach the rescoring net anything
MIN_RESCORED_AREA = 25


def mask_loss(prototypes: Tensor, coefficients: Tensor, boxes: Tensor, masks: Tensor, target_index: Tensor) -> Tensor:
    """Sum over positives of the pixel BCE inside the ground-truth crop ÷ the box's area in prototype pixels.

    Only the pixels inside the crops are computed: hundreds of small objects cost no more than a few large ones.

    Args:
        prototypes: (K, h, w).
        coefficients: (P, K) of the positive anchors.
        boxes: (G, 4) xyxy relative ground truth.
        masks: (G, H, W) bool ground truth of the whole image.
        target_index: (P,) int64, the ground truth of each positive.

    Returns:
        A scalar, 0 where P = 0.
    """
    _, height, width = prototypes.shape
    crops = crop_pixels(boxes[target_index], height, width)
    # BCE on probabilities, not on logits: the release clamps the logarithm of saturated probabilities, and its losses
    # are only met by doing the same
    probability = _assemble_pixels(prototypes, coefficients, crops).sigmoid()
    wanted = resize_masks(masks, height, width)[target_index[crops.instance], crops.row, crops.column]
    # the kernel would stop the process at a NaN; here NaN goes on into the loss, where training can name it
    defined = probability.nan_to_num(nan=0.5)
    pixel_loss = F.binary_cross_entropy(defined, wanted.to(probability.dtype), reduction="none")
    sides = (boxes[:, 2:] - boxes[:, :2]) * boxes.new_tensor([width, height])
    per_pixel = pixel_loss / sides.prod(dim=1)[target_index[crops.instance]]
    return per_pixel.sum() + 0 * probability.sum()


def _assemble_pixels(prototypes: Tensor, coefficients: Tensor, crops: RegionPixels) -> Tensor:
    pixels = F.embedding(crops.row * prototypes.shape[2] + crops.column, prototypes.flatten(1).t())
    return (pixels * coefficients.index_select(0, crops.instance)).sum(dim=1)


def mask_iou_loss(
    rescoring: nn.Module,
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    masks: Tensor,
    labels: Tensor,
    target_index: Tensor,
) -> Tensor:
    """Smooth L1 between the rescoring net's and the true IoU of each positive's predicted mask, summed (YOLACT++).

    Args:
        rescoring: maps (P, h, w) cropped probabilities to (P, C) IoUs.
        prototypes: (K, h, w).
        coefficients: (P, K).
        boxes: (G, 4) xyxy relative.
        masks: (G, H, W) bool.
        labels: (G,) int64 0-based.
        target_index: (P,) int64.

    Returns:
        A scalar; 0 where no ground-truth mask has more than 25 px at prototype resolution.
    """
    _, height, width = prototypes.shape
    wanted_masks = resize_masks(masks, height, width)
    large = wanted_masks.flatten(1).sum(dim=1)[target_index] > MIN_RESCORED_AREA
    coefficients, target_index = coefficients[large], target_index[large]
    if not len(target_index):
        return sum((parameter.sum() * 0 for parameter in rescoring.parameters()), prototypes.sum() * 0)
    crops = crop_pixels(boxes[target_index], height, width)
    probability = prototypes.new_zeros(len(target_index), height, width)
    probability[crops.instance, crops.row, crops.column] = _assemble_pixels(prototypes, coefficients, crops).sigmoid()
    predicted = probability.detach() > 0.5
    wanted = wanted_masks[target_index]
    true_iou = (predicted & wanted).sum(dim=(1, 2)) / (predicted | wanted).sum(dim=(1, 2))
    iou = rescoring(probability)
    return F.smooth_l1_loss(iou.gather(1, labels[target_index][:, None]).squeeze(1), true_iou, reduction="sum")
