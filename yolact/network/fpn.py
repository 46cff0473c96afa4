"""Feature pyramid: backbone maps C2–C5 → maps P2–P7, all with D channels. Shapes: B images, D pyramid channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Lateral 1×1, top-down by bilinear upsampling, then 3×3 and ReLU; P6 and up by stride-2 convolutions without ReLU.

    Only the layers that `levels` need are built, so that every parameter gets a gradient.

    Args:
        in_channels: backbone level → channels.
        channels: D.
        levels: pyramid levels to give.
    """

    def __init__(self, in_channels: Mapping[int, int], channels: int, levels: Collection[int]) -> None:
        super().__init__()
        self.top = max(in_channels)
        extra = range(self.top + 1, max(levels) + 1)
        outputs = {level for level in levels if level <= self.top} | ({self.top} if extra else set())
        laterals = range(min(levels, default=self.top), self.top + 1)
        self.lateral = nn.ModuleDict({str(level): nn.Conv2d(in_channels[level], channels, 1) for level in laterals})
        self.output = nn.ModuleDict(
            {str(level): nn.Conv2d(channels, channels, 3, padding=1) for level in sorted(outputs)}
        )
        self.downsample = nn.ModuleDict(
            {str(level): nn.Conv2d(channels, channels, 3, stride=2, padding=1) for level in extra}
        )

    def forward(self, features: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Level → (B, C, h, w) becomes level → (B, D, h, w)."""
        merged: dict[int, Tensor] = {}
        for level in sorted(map(int, self.lateral), reverse=True):
            x = self.lateral[str(level)](features[level])
            if level + 1 in merged:
                x = x + F.interpolate(merged[level + 1], size=x.shape[-2:], mode="bilinear", align_corners=False)
            merged[level] = x
        pyramid = {int(name): F.relu(conv(merged[int(name)])) for name, conv in self.output.items()}
        for name, conv in self.downsample.items():
            pyramid[int(name)] = conv(pyramid[int(name) - 1])
        return pyramid
