"""Raw predictions of a picture with a given number of instances, as a trained network would give them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact.anchors import make_anchors
from yolact.config import YolactConfig
from yolact.model import RawPredictions

#: anchors that answer to one instance
_ANSWERS = 12


def make_scene(config: YolactConfig, instances: int, seed: int = 0) -> tuple[RawPredictions, Tensor]:
    """Raw predictions of one image (batch of 1) and the anchors (A, 4).

    Everything is background with certainty but `instances` boxes of all sizes and classes, each found by a dozen
    anchors with scores of 0.3 to 1. Prototypes are smooth blobs, so that masks have outlines like those of things.
    """
    rng = torch.Generator().manual_seed(seed)
    anchors = make_anchors(config)
    count, classes, prototypes = len(anchors), config.num_classes, config.num_prototypes
    logits = torch.randn(count, classes + 1, generator=rng)
    logits[:, 0] += 9
    deltas = 0.3 * torch.randn(count, 4, generator=rng)
    coefficients = torch.tanh(torch.randn(count, prototypes, generator=rng))
    # anchors stand in order of level, the many small ones first: half of the instances are to be large
    place = (torch.linspace(0, 1, instances) ** 0.08 * (count - _ANSWERS)).long()
    for instance, first in enumerate(place.tolist()):
        rows = slice(first, first + _ANSWERS)
        # all answers draw the same box around the first anchor, more or less
        box = anchors[first].clone()
        wanted = box + 0.02 * box[2:].repeat(2) * torch.randn(_ANSWERS, 4, generator=rng)
        deltas[rows, :2] = (wanted[:, :2] - anchors[rows, :2]) / (0.1 * anchors[rows, 2:])
        deltas[rows, 2:] = torch.log(wanted[:, 2:] / anchors[rows, 2:]) / 0.2
        logits[rows, 1 + instance % classes] = 9 + 3 * torch.rand(_ANSWERS, generator=rng)
    coarse = torch.randn(1, prototypes, 14, 14, generator=rng)
    size = _prototype_size(config)
    maps = F.interpolate(coarse, (size, size), mode="bicubic").relu()
    return RawPredictions(deltas[None], logits[None], coefficients[None], maps, None), anchors


def _prototype_size(config: YolactConfig) -> int:
    # C3, at an eighth of the input, upsampled by two
    return 2 * -(-config.input_size // 8)
