"""Weights by formula: every tensor of the release's state dict follows from its name and shape.

The parity cases were made with these weights, so that no checkpoint has to be stored.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

#: factor of the last normalisation of a residual block; it keeps a deep stack of random blocks from growing
RESIDUAL_GAIN = 0.2
#: added to the background logit of every anchor, so that only some hundreds of anchors pass the score threshold
BACKGROUND_BIAS = 16.0
#: factor of a layer's convolution weights, by a part of its name
CONVOLUTION_GAINS = {"conv_offset_mask": 0.3, "conf_layer": 1.5, "bbox_layer": 0.5, "mask_layer": 1.0}


def reference_state_dict(shapes: Mapping[str, Sequence[int]], num_classes: int) -> dict[str, np.ndarray]:
    """The state dict of a table of names and shapes; `num_classes` counts the background class."""
    return {name: reference_tensor(name, tuple(shape), num_classes) for name, shape in shapes.items()}


def reference_tensor(name: str, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
    """The tensor `name`: float32 of `shape`, or int64 zeros for a counter of batches."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        values = rng.uniform(0.8, 1.2, shape)
    elif name.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 4:
        values = _convolution(name, shape, rng)
    elif name.endswith("weight"):
        values = rng.uniform(0.7, 1.0, shape) * (RESIDUAL_GAIN if _ends_residual_block(name) else 1.0)
    else:
        values = 0.05 * rng.standard_normal(shape)
        if "conf_layer" in name:
            values[::num_classes] += BACKGROUND_BIAS
    return values.astype(np.float32)


def _convolution(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """He initialisation by fan-in, times the layer's gain."""
    scale = math.sqrt(2.0 / math.prod(shape[1:]))
    for part, gain in CONVOLUTION_GAINS.items():
        scale *= gain if part in name else 1.0
    values = scale * rng.standard_normal(shape)
    if "conf_layer" in name:  # without a mean, class scores follow structure and not brightness
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
    return values


def _ends_residual_block(name: str) -> bool:
    """Whether `name` is the last normalisation of a ResNet or DarkNet block."""
    return ".bn3." in name or (".conv2.1." in name and "layers" in name)
