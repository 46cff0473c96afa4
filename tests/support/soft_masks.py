"""Run lengths of given soft masks, so that a test decides every value itself and no sigmoid rounds it."""

from __future__ import annotations

import numpy as np
import torch

from yolact.geometry.outlines import THRESHOLD, find_flips, sides_of_half
from yolact.geometry.rle import Rle, encode_flips


def encode_soft_masks(
    masks: torch.Tensor | np.ndarray, regions: torch.Tensor | np.ndarray, height: int, width: int
) -> tuple[list[Rle], np.ndarray]:
    """`encode_mask_logits` for masks (N, h, w) float32 in 0..1 that have their sigmoid behind them."""
    masks, regions = torch.as_tensor(masks), torch.as_tensor(regions)
    sides = sides_of_half(masks, regions, THRESHOLD, THRESHOLD)
    flips = find_flips(masks, regions, sides, lambda values: values, height, width)
    return encode_flips(flips, len(masks), height, width)
