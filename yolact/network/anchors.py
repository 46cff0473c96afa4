"""Computes the anchors of a config: the boxes that the network's predictions are relative to. Shapes: A anchors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yolact.config import YolactConfig


def make_anchors(config: YolactConfig) -> Tensor:
    """All anchors in the order of the head's rows: level, row, column, scale, ratio (paper, section 4).

    Returns:
        (A, 4) float32 cxcywh relative to the image, always on the CPU (also when a model is built on the meta device).
        With `anchors.square` the height equals the width whatever the ratio, as in the released COCO models.
    """
    levels = zip(config.head_levels, config.anchors.scales, strict=True)
    return torch.cat([_level_anchors(config, config.level_size(level), scales) for level, scales in levels])


def _level_anchors(config: YolactConfig, cells: int, scales: tuple[float, ...]) -> Tensor:
    shapes = []
    for scale in scales:
        for ratio in config.anchors.ratios:
            width = scale * math.sqrt(ratio) / config.input_size
            height = width if config.anchors.square else scale / math.sqrt(ratio) / config.input_size
            shapes.append((width, height))
    centres = [(index + 0.5) / cells for index in range(cells)]
    centre = torch.tensor(centres, dtype=torch.float32, device="cpu")
    size = torch.tensor(shapes, dtype=torch.float32, device="cpu")
    anchors = torch.empty(cells, cells, len(shapes), 4, dtype=torch.float32, device="cpu")
    anchors[..., 0] = centre[None, :, None]
    anchors[..., 1] = centre[:, None, None]
    anchors[..., 2:] = size
    return anchors.reshape(-1, 4)
