"""Instance masks from prototypes and coefficients (paper, section 3.3).

Shapes: K prototypes of h × w, N detections, H × W the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: prototype pixels by which a box is grown on each side before its mask is cut
CROP_PADDING = 1.0


def assemble_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """sigmoid(P · Cᵀ): prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) in 0..1, not cropped."""
    return torch.sigmoid(mask_logits(prototypes, coefficients))


def mask_logits(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """P · Cᵀ: prototypes (K, h, w) and coefficients (N, K) → soft masks (N, h, w) before their sigmoid."""
    count, height, width = prototypes.shape
    return (coefficients @ prototypes.reshape(count, -1)).view(-1, height, width)


def crop_regions(boxes_relative: Tensor, height: int, width: int) -> Tensor:
    """The pixels of a height × width map that cropping keeps.

    Args:
        boxes_relative: (N, 4) xyxy fractions; corners may be swapped or outside.
        height, width: of the prototypes.

    Returns:
        (N, 4) int64 x1, y1, x2, y2, ends excluded, within the map: pixels with x1 − 1 ≤ x < x2 + 1.
    """
    limit = boxes_relative.new_tensor([width, height])
    corners = boxes_relative.view(-1, 2, 2) * limit
    first = (corners.amin(dim=1) - CROP_PADDING).ceil().clamp(torch.zeros_like(limit), limit)
    end = (corners.amax(dim=1) + CROP_PADDING).ceil().clamp(torch.zeros_like(limit), limit)
    return torch.cat([first, end], dim=1).long()


def inside_regions(regions: Tensor, height: int, width: int) -> Tensor:
    """(N, height, width) bool: which pixels of a map lie in each of the regions (N, 4)."""
    rows = torch.arange(height, device=regions.device)[None, :, None]
    columns = torch.arange(width, device=regions.device)[None, None, :]
    x1, y1, x2, y2 = (regions[:, side, None, None] for side in range(4))
    return ((rows >= y1) & (rows < y2)) & ((columns >= x1) & (columns < x2))


def crop_masks(masks: Tensor, regions: Tensor) -> Tensor:
    """Masks (N, h, w) with everything outside their regions (N, 4) set to 0."""
    return masks * inside_regions(regions, *masks.shape[1:])


def whole_regions(count: int, height: int, width: int) -> Tensor:
    """(count, 4) regions that keep a whole height × width map: masks that are not cropped."""
    return torch.tensor([[0, 0, width, height]]).expand(count, 4)
