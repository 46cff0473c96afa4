"""Matches anchors with ground truth: which anchor learns which object (paper section 3, the release's SSD matching).

A anchors, G targets. Boxes are xyxy relative to the image (0–1) unless the name says otherwise.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from yolact.geometry.boxes import box_iou, intersection_over_area

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
CROWD_OVERLAP = 0.7

NEUTRAL = -1
BACKGROUND = 0


class Matches(NamedTuple):
    """What every anchor of one image has to predict."""

    classes: Tensor
    """(A,) int64: −1 neutral (no class loss), 0 background, 1 + label where positive"""
    target_index: Tensor
    """(A,) int64: index of the ground truth with the highest overlap; meaningful where `classes` > 0"""

    @property
    def positive(self) -> Tensor:
        """(A,) bool"""
        return self.classes > BACKGROUND


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    crowd_boxes: Tensor | None = None,
    *,
    positive_iou: float = POSITIVE_IOU,
    negative_iou: float = NEGATIVE_IOU,
    crowd_overlap: float = CROWD_OVERLAP,
) -> Matches:
    """Match anchors to ground truths by IoU; every ground truth claims at least one anchor.

    Args:
        anchors: (A, 4) cx, cy, w, h relative.
        boxes: (G, 4) xyxy relative, crowds left out. G = 0 makes every anchor background.
        labels: (G,) int64, 0-based.
        crowd_boxes: (M, 4) xyxy relative regions that hold uncounted objects, or None.
        positive_iou: anchors at or above it are positive.
        negative_iou: anchors below it are background; between the two they are neutral.
        crowd_overlap: anchors that are not positive become neutral where more than this share of them lies in a crowd.

    Returns:
        `Matches` on the anchors' device.
    """
    corners = anchor_corners(anchors)
    if boxes.shape[0]:
        overlaps = box_iou(boxes, corners)
        best_overlap, target_index = overlaps.max(dim=0)
        claimed = claim_best_anchors(overlaps)
        best_overlap[claimed] = 2.0  # above every threshold
        target_index[claimed] = torch.arange(len(claimed), device=claimed.device)
        classes = labels[target_index] + 1
        classes[best_overlap < positive_iou] = NEUTRAL
        classes[best_overlap < negative_iou] = BACKGROUND
    else:
        classes = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        target_index = torch.zeros_like(classes)
    if crowd_boxes is not None and crowd_boxes.shape[0]:
        inside = intersection_over_area(corners, crowd_boxes).amax(dim=1) > crowd_overlap
        classes[(classes <= BACKGROUND) & inside] = NEUTRAL
    return Matches(classes, target_index)


def anchor_corners(anchors: Tensor) -> Tensor:
    """(A, 4) cx, cy, w, h → xyxy by centre ± half size.

    A small object lies wholly inside several anchors of one size. Their IoUs then differ in the last bit only, so the
    order of operations decides which anchor learns the object. The order here is the release's.
    """
    half = anchors[:, 2:] / 2
    return torch.cat([anchors[:, :2] - half, anchors[:, :2] + half], dim=1)


def claim_best_anchors(overlaps: Tensor) -> Tensor:
    """Give every ground truth an anchor of its own, pairs with the highest overlap first.

    The release scans the whole matrix once per ground truth. Here a heap holds the best anchor of every ground truth,
    and a row is searched again only if its anchor was taken. The result is the same, and the usual case costs G log G.

    Args:
        overlaps: (G, A) IoU, A ≥ G; not changed.

    Returns:
        (G,) int64 distinct anchor indices; ties go to the lower index.
    """
    best_overlap, best_anchor = overlaps.max(dim=1)
    queue = [
        (-overlap, target, anchor)
        for target, (overlap, anchor) in enumerate(zip(best_overlap.tolist(), best_anchor.tolist(), strict=True))
    ]
    heapq.heapify(queue)
    taken: dict[int, int] = {}  # anchor → ground truth
    while queue:
        _, target, anchor = heapq.heappop(queue)
        if anchor in taken:
            row = overlaps[target].clone()
            row[list(taken)] = -1.0
            overlap, free_anchor = row.max(dim=0)
            heapq.heappush(queue, (-overlap.item(), target, int(free_anchor)))
        else:
            taken[anchor] = target
    claimed = torch.empty(len(taken), dtype=torch.int64)
    claimed[list(taken.values())] = torch.tensor(list(taken), dtype=torch.int64)
    return claimed.to(overlaps.device)
