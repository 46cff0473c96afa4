"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolact.deformable import DeformableConv2d
from yolact.model import Yolact


def fold_batch_norms(model: Yolact) -> Yolact:
    """A copy of `model`, in evaluation mode, with an identity in the place of every batch norm after a convolution.

    In a module that has a convolution and a batch norm as neighbours, in the order they were added, the one follows the
    other: true of every backbone here, and checked by comparing outputs. Weights differ by float rounding.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(convolution, nn.Conv2d | DeformableConv2d):
                # only `weight` and `bias` are read and replaced, which both kinds have
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var]
                setattr(module, norm_name, nn.Identity())
    return folded
