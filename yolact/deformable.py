"""Modulated deformable convolution (DCNv2), used in YOLACT++ backbones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv2d(nn.Module):
    """A 3×3 convolution whose nine taps are moved and weighted by a convolution of the same input.

    `offset_mask` gives 27 channels: 18 offsets (y, x for each tap), then 9 mask logits. It starts at zero, so that the
    layer starts as an ordinary convolution at half strength (paper of YOLACT++, section 3).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.stride = stride
        self.weight = plain.weight
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.offset_mask = nn.Conv2d(in_channels, 27, 3, stride=stride, padding=1)
        nn.init.zeros_(self.offset_mask.weight)
        assert self.offset_mask.bias is not None
        nn.init.zeros_(self.offset_mask.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) → (B, out, H/stride, W/stride); the deformable part in float32, also under autocast."""
        offset, mask = self.offset_mask(x).float().split([18, 9], dim=1)
        kind = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"
        with torch.autocast(kind, enabled=False):
            return deform_conv2d(
                x.float(), offset, self.weight, self.bias, stride=self.stride, padding=1, mask=torch.sigmoid(mask)
            )
