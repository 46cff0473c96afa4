"""The parts on top of the pyramid: prediction head, protonet, mask scoring net.

Shapes: B images, D pyramid channels, A anchors, C classes, K prototypes, N detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


def _conv_relu(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    widths = [in_channels] + [channels] * depth
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PredictionHead(nn.Module):
    """Class, box and mask coefficients for every anchor; all levels share one set of weights (paper, section 3.1)."""

    def __init__(
        self, in_channels: int, channels: int, depth: int, anchors_per_cell: int, num_classes: int, num_prototypes: int
    ) -> None:
        super().__init__()
        width = channels if depth else in_channels
        self.trunk = _conv_relu(in_channels, channels, depth)
        self.box_layer = nn.Conv2d(width, anchors_per_cell * 4, 3, padding=1)
        self.class_layer = nn.Conv2d(width, anchors_per_cell * (num_classes + 1), 3, padding=1)
        self.coefficient_layer = nn.Conv2d(width, anchors_per_cell * num_prototypes, 3, padding=1)
        self.columns = (4, num_classes + 1, num_prototypes)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, D, h, w), finest first → box deltas (B, A, 4), class logits (B, A, C+1), coefficients (B, A, K).

        Background is the first class; coefficients lie in −1..1.
        """
        boxes, classes, coefficients = [], [], []
        for level in levels:
            x = self.trunk(level)
            boxes.append(_rows(self.box_layer(x), self.columns[0]))
            classes.append(_rows(self.class_layer(x), self.columns[1]))
            coefficients.append(_rows(self.coefficient_layer(x), self.columns[2]))
        return torch.cat(boxes, 1), torch.cat(classes, 1), torch.tanh(torch.cat(coefficients, 1))


def _rows(x: Tensor, columns: int) -> Tensor:
    """(B, anchors·columns, h, w) → (B, h·w·anchors, columns): row, column, anchor."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, columns)


class Protonet(nn.Module):
    """Prototype masks for the whole image, at twice the resolution of the map below (paper, section 3.2)."""

    def __init__(
        self, in_channels: int, channels: int, depth: tuple[int, int], num_prototypes: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        before, after = depth
        width = channels if before else in_channels
        self.before = _conv_relu(in_channels, channels, before)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.after = _conv_relu(width, channels, after)
        self.project = nn.Conv2d(channels if after else width, num_prototypes, 1)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) → prototypes (B, K, 2h, 2w)."""
        return self.activation(self.project(self.after(self.upsample(self.before(x)))))


class MaskScoringNet(nn.Module):
    """Predicts for every class the IoU of a mask with the true mask, from the cropped mask alone (YOLACT++)."""

    WIDTHS = (1, 8, 16, 32, 64, 128)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(self.WIDTHS):
            layers += [nn.Conv2d(before, after, 3, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(self.WIDTHS[-1], num_classes, 1), nn.ReLU(inplace=True))
        self.num_classes = num_classes

    def forward(self, masks: Tensor) -> Tensor:
        """Masks (N, h, w) in 0..1 at prototype resolution → (N, C) predicted IoU, at least 0."""
        if masks.shape[0] == 0:
            return masks.new_zeros((0, self.num_classes))
        return self.layers(masks[:, None]).amax(dim=(2, 3))
