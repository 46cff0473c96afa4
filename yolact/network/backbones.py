"""Backbones: image → feature maps C2–C5 at strides 4, 8, 16 and 32, keyed by level. Shapes: B images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

#: backbone → torchvision's blocks per stage
RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DARKNET53_BLOCKS = (1, 2, 8, 8, 4)


class Backbone(nn.Module):
    """The part of a backbone that the feature pyramid uses."""

    channels: Mapping[int, int]
    """Level → channels of its feature map."""

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, S, S) → level → (B, channels, S/2**level, S/2**level), sizes rounded up."""
        raise NotImplementedError


class ResNetBackbone(Backbone):
    """torchvision's ResNet (stride on the 3×3) without its classifier.

    Args:
        name: "resnet50" or "resnet101".
        deformable: per stage (d, t), see `is_deformable`; () for none.
    """

    channels: Mapping[int, int] = {2: 256, 3: 512, 4: 1024, 5: 2048}

    def __init__(self, name: str, deformable: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layers = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        for stage, (last, interval) in zip(self.layers, deformable, strict=False):
            assert isinstance(stage, nn.Sequential)
            for index, block in enumerate(stage):
                if is_deformable(index, len(stage), last, interval):
                    plain = block.conv2
                    assert isinstance(plain, nn.Conv2d)
                    block.conv2 = DeformableConv2d(plain.in_channels, plain.out_channels, plain.stride[0])

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = {}
        for level, stage in enumerate(self.layers, start=2):
            x = stage(x)
            features[level] = x
        return features


def is_deformable(block: int, blocks: int, last: int, interval: int) -> bool:
    """Whether a block of a stage is deformable: the release's rule for setting d = `last`, t = `interval`."""
    if block == 0:
        return last >= blocks
    return block + last >= blocks and block % interval == 0


def _darknet_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


class DarkNetBlock(nn.Module):
    """1×1 to half the channels, 3×3 back, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _darknet_conv(channels, channels // 2, 1)
        self.conv2 = _darknet_conv(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + x


class DarkNetBackbone(Backbone):
    """DarkNet-53: five stages, each a stride-2 convolution and residual blocks."""

    channels: Mapping[int, int] = {2: 128, 3: 256, 4: 512, 5: 1024}

    def __init__(self, blocks: Sequence[int] = DARKNET53_BLOCKS) -> None:
        super().__init__()
        self.stem = _darknet_conv(3, 32, 3)
        widths = [32 * 2**stage for stage in range(len(blocks) + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(_darknet_conv(before, width, 3, stride=2), *(DarkNetBlock(width) for _ in range(count)))
            for before, width, count in zip(widths, widths[1:], blocks, strict=False)
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x = self.stem(images)
        features = {}
        for level, stage in enumerate(self.layers, start=1):
            x = stage(x)
            features[level] = x
        return {level: features[level] for level in self.channels}


class MobileNetV2Backbone(Backbone):
    """torchvision's MobileNetV2 feature extractor; each map comes from the last layer of its stride."""

    channels: Mapping[int, int] = {2: 24, 3: 32, 4: 96, 5: 1280}
    _taps: Mapping[int, int] = {3: 2, 6: 3, 13: 4, 18: 5}

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2().features

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x = images
        features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._taps:
                features[self._taps[index]] = x
        return features


def build_backbone(name: str, deformable: Sequence[tuple[int, int]] = ()) -> Backbone:
    """The backbone that a config names, randomly initialised."""
    builders: dict[str, Callable[[], Backbone]] = {
        "resnet50": lambda: ResNetBackbone("resnet50", deformable),
        "resnet101": lambda: ResNetBackbone("resnet101", deformable),
        "darknet53": DarkNetBackbone,
        "mobilenetv2": MobileNetV2Backbone,
    }
    return builders[name]()


class DeformableConv2d(nn.Module):
    """A modulated deformable 3×3 convolution: a second convolution moves and weights each of the nine taps.

    The second one, `offset_mask`, gives 27 channels: 18 offsets (y, x for each tap), then 9 mask logits. Its weights
    start at zero, so the layer starts as an ordinary convolution at half strength (paper of YOLACT++, section 3).
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
