"""The network: `Yolact`, its raw output, and `build_yolact`, the only place where configs become parts.

Shapes: B images, S input side, A anchors, C classes, K prototypes, h × w prototype size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from yolact.config import YolactConfig, get_config
from yolact.network.anchors import make_anchors
from yolact.network.backbones import Backbone, build_backbone
from yolact.network.fpn import FeaturePyramid
from yolact.network.heads import MaskScoringNet, PredictionHead, Protonet


class RawPredictions(NamedTuple):
    """The network's outputs, before NMS and thresholds."""

    box_deltas: Tensor
    """(B, A, 4) SSD offsets to `Yolact.anchors`."""
    class_logits: Tensor
    """(B, A, C+1), background first."""
    mask_coefficients: Tensor
    """(B, A, K) in −1..1."""
    prototypes: Tensor
    """(B, K, h, w), after their activation."""
    semantic_logits: Tensor | None
    """(B, C, h/2, w/2), or None without the semantic branch and at inference."""


class Yolact(nn.Module):
    """YOLACT of given parts (arXiv 1904.02689); `build_yolact` makes one from a config.

    `anchors` is (A, 4) cxcywh relative to the image. `mask_scoring` is the net of YOLACT++, or None. It runs on
    assembled masks and is no part of `forward`.
    """

    anchors: Tensor

    def __init__(
        self,
        config: YolactConfig,
        backbone: Backbone,
        fpn: FeaturePyramid,
        head: PredictionHead,
        protonet: Protonet,
        semantic: nn.Module | None = None,
        mask_scoring: MaskScoringNet | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        self.protonet = protonet
        self.semantic = semantic
        self.mask_scoring = mask_scoring
        self.register_buffer("anchors", make_anchors(config), persistent=False)

    def forward(self, images: Tensor) -> RawPredictions:
        """Normalised images (B, 3, S, S) float → raw predictions, semantic logits included where the branch exists."""
        pyramid = self.fpn(self.backbone(images))
        raw = self._predict(pyramid)
        if self.semantic is None:
            return raw
        return raw._replace(semantic_logits=self.semantic(pyramid[self.config.protonet_level]))

    def infer(self, images: Tensor) -> RawPredictions:
        """As `forward`, without the semantic branch, which only training needs."""
        return self._predict(self.fpn(self.backbone(images)))

    def _predict(self, pyramid: dict[int, Tensor]) -> RawPredictions:
        boxes, classes, coefficients = self.head([pyramid[level] for level in self.config.head_levels])
        prototypes = self.protonet(pyramid[self.config.protonet_level])
        return RawPredictions(boxes, classes, coefficients, prototypes, None)


def build_yolact(config: str | YolactConfig) -> Yolact:
    """A model with random weights: Kaiming in the backbone, Xavier elsewhere.

    Args:
        config: the name of a config or a config.

    Raises:
        ValueError: for an unknown name.
    """
    config = get_config(config)
    width = config.fpn_channels
    backbone = build_backbone(config.backbone, config.deformable)
    model = Yolact(
        config,
        backbone,
        FeaturePyramid(backbone.channels, width, {*config.head_levels, config.protonet_level}),
        PredictionHead(
            width,
            config.head_channels,
            config.head_depth,
            config.anchors.per_cell,
            config.num_classes,
            config.num_prototypes,
        ),
        Protonet(
            width,
            config.protonet_channels,
            config.protonet_depth,
            config.num_prototypes,
            config.prototype_activation,
        ),
        nn.Conv2d(width, config.num_classes, 1) if config.semantic_branch else None,
        MaskScoringNet(config.num_classes) if config.mask_rescoring else None,
    )
    for name, part in model.named_children():
        if name != "backbone":
            part.apply(_xavier)
    return model


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


#: the four tensors, in order; shapes as in `RawPredictions`
OUTPUT_NAMES = ("box_deltas", "class_logits", "mask_coefficients", "prototypes")


class InferenceNetwork(nn.Module):
    """`Yolact.infer`: normalised images (B, 3, S, S) → the tensors of `OUTPUT_NAMES`."""

    def __init__(self, model: Yolact) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        raw = self.model.infer(images)
        return raw.box_deltas, raw.class_logits, raw.mask_coefficients, raw.prototypes
