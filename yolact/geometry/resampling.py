"""Bilinear resizing without antialiasing and with half-pixel centres: where each output element looks.

Does not import torch: decoding uses it in processes that have no network.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def bilinear_neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `target` output elements of one axis: the two source elements that it lies between.

    Rounds to float32 where PyTorch's `interpolate` does: the release's weights were trained with that.

    Returns:
        (target,) int64 lower element, (target,) int64 upper element, (target,) float32 weight of the upper one. Do not
        change them: later calls get the same arrays.
    """
    scale = np.float64(np.float32(source / target))
    centre = np.maximum((np.arange(target) + 0.5) * scale - 0.5, 0.0).astype(np.float32)
    lower = np.minimum(centre.astype(np.int64), source - 1)
    return lower, np.minimum(lower + 1, source - 1), centre - lower.astype(np.float32)
