"""Box geometry: formats, conversions, overlaps and the SSD coding. All conversions of boxes live here.

Shapes: A anchors, N and M boxes; leading dimensions broadcast.
Formats: `xyxy` are corners, `cxcywh` centre and size. Boxes are in absolute pixels unless a name ends in `_relative`
(fractions of the image's width and height).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: SSD's coding variances of centre and size
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size → corners, in the same frame."""
    corner = boxes[..., :2] - boxes[..., 2:] / 2
    return torch.cat([corner, corner + boxes[..., 2:]], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners → centre and size, in the same frame."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def encode_boxes(boxes: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Box deltas that `decode_boxes` turns back into `boxes`.

    Args:
        boxes: (..., 4) xyxy with positive width and height, in the anchors' frame (relative to the image).
        anchors_cxcywh: (..., 4), one anchor per box.

    Returns:
        (..., 4) SSD offsets with variances 0.1 and 0.2.
    """
    target = xyxy_to_cxcywh(boxes)
    centre = (target[..., :2] - anchors_cxcywh[..., :2]) / (CENTRE_VARIANCE * anchors_cxcywh[..., 2:])
    size = torch.log(target[..., 2:] / anchors_cxcywh[..., 2:]) / SIZE_VARIANCE
    return torch.cat([centre, size], dim=-1)


def decode_boxes(deltas: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy in the anchors' frame (not clamped) from predicted deltas (..., 4)."""
    centre = anchors_cxcywh[..., :2] + deltas[..., :2] * CENTRE_VARIANCE * anchors_cxcywh[..., 2:]
    size = anchors_cxcywh[..., 2:] * torch.exp(deltas[..., 2:] * SIZE_VARIANCE)
    return cxcywh_to_xyxy(torch.cat([centre, size], dim=-1))


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy → (...) areas."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection_area(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) xyxy → (..., N, M) areas of the pairwise intersections; 0 where apart."""
    lower = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    upper = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    size = (upper - lower).clamp(min=0)
    return size[..., 0] * size[..., 1]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) xyxy → (..., N, M) intersection over union in 0..1; 0 where both boxes are empty."""
    intersection = intersection_area(boxes, others)
    union = box_area(boxes)[..., :, None] + box_area(others)[..., None, :] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def intersection_over_area(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) xyxy → (..., N, M): the share of each of `boxes` that lies inside each of `others`.

    The overlap with crowd regions, which may be much larger than any box.
    """
    area = box_area(boxes)[..., :, None]
    return intersection_area(boxes, others) / area.clamp(min=torch.finfo(area.dtype).tiny)


def relative_to_pixels(boxes_relative: Tensor, height: int, width: int) -> Tensor:
    """(N, 4) xyxy fractions → xyxy in pixels of a height × width image: corners in order and clamped to the image."""
    return relative_to_sizes(boxes_relative, boxes_relative.new_tensor([[height, width]]))


def relative_to_sizes(boxes_relative: Tensor, sizes: Tensor) -> Tensor:
    """As `relative_to_pixels`, with the height and width of each box's image: (N, 2), or (1, 2) for all."""
    limit = sizes.flip(1).to(boxes_relative.dtype)
    corners = boxes_relative.unflatten(-1, (2, 2)) * limit[:, None]
    lower, upper = corners.aminmax(dim=-2)
    zero = torch.zeros_like(limit)
    return torch.cat([lower.clamp(zero, limit), upper.clamp(zero, limit)], dim=-1)
