"""The values that describe a YOLACT model: `YolactConfig`, and the named configs in `CONFIGS`.

A config is frozen and JSON-serialisable. An ablation is another value
(`dataclasses.replace(config, num_prototypes=8)`); only `yolact.network.model.build_yolact` turns values into parts.
This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

COCO_CLASSES: tuple[str, ...] = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)

PASCAL_CLASSES: tuple[str, ...] = tuple(
    """aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
    pottedplant, sheep, sofa, train, tvmonitor""".replace("\n    ", " ").split(", ")
)


BackboneName = Literal["resnet50", "resnet101", "darknet53", "mobilenetv2"]
ActivationName = Literal["relu", "softplus", "sigmoid", "tanh", "none"]
NmsKind = Literal["fast", "fast-cross-class", "standard"]

#: finest and coarsest map that every backbone gives (C2 at stride 4 ... C5 at stride 32)
FINEST_LEVEL, BACKBONE_TOP_LEVEL = 2, 5
#: side of the smallest mask that the mask scoring net's five unpadded stride-2 convolutions leave a pixel of
SMALLEST_RESCORED = 63


@dataclass(frozen=True)
class AnchorConfig:
    """Anchor shapes, the same set of ratios on every level (paper, section 4)."""

    scales: tuple[tuple[float, ...], ...]
    """One tuple per head level, finest level first: anchor sizes in network-input pixels."""
    ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    """Width over height."""
    square: bool = False
    """Make height equal to width, whatever the ratio: what the released COCO models were (mistakenly) trained with."""

    def __post_init__(self) -> None:
        if not self.ratios or not self.scales or not all(self.scales):
            raise ValueError("anchors need at least one ratio and, for every head level, at least one scale")
        if min(min(level) for level in self.scales) <= 0 or min(self.ratios) <= 0:
            raise ValueError(f"anchor scales and ratios must be positive, not {self.scales} and {self.ratios}")
        if len({len(level) for level in self.scales}) != 1:
            raise ValueError(f"every head level needs the same number of anchor scales, not {self.scales}")

    @property
    def per_cell(self) -> int:
        return len(self.scales[0]) * len(self.ratios)


@dataclass(frozen=True)
class NmsConfig:
    """Detection settings of the release."""

    score_floor: float = 0.05
    """Anchors whose best foreground score is not above this are dropped first."""
    iou_threshold: float = 0.5
    """A box that overlaps a better one by more than this is removed."""
    top_k: int = 200
    """Boxes that enter NMS, per class (over all classes in the cross-class variant)."""
    max_detections: int = 100
    """Detections kept per image, over all classes."""
    kind: NmsKind = "fast"
    """The kind of NMS if the user does not choose; the paper's Fast NMS, see `yolact.inference.nms`."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_floor < 1 or not 0 <= self.iou_threshold <= 1:
            raise ValueError(
                f"score_floor and iou_threshold must lie in 0..1: {self.score_floor}, {self.iou_threshold}"
            )
        if self.top_k < 1 or self.max_detections < 1:
            raise ValueError(f"top_k and max_detections must be at least 1: {self.top_k}, {self.max_detections}")
        if self.kind not in get_args(NmsKind):
            raise ValueError(f"nms {self.kind!r} is not one of {', '.join(get_args(NmsKind))}")


@dataclass(frozen=True)
class OfficialFile:
    """Where the release's authors publish the checkpoint of a config."""

    repository: str
    """Repository on the Hugging Face Hub."""
    filename: str

    @property
    def uri(self) -> str:
        return f"hf://{self.repository}/{self.filename}"


@dataclass(frozen=True)
class YolactConfig:
    """Everything that decides the model's shape and its detections. Raises `ValueError` for values that do not fit."""

    name: str
    input_size: int
    """Side S of the square network input, in pixels."""
    backbone: BackboneName
    class_names: tuple[str, ...]
    """Foreground classes, label 0 first."""
    anchors: AnchorConfig
    deformable: tuple[tuple[int, int], ...] = ()
    """Per backbone stage (d, t): deformable convolutions in its last d blocks, every t-th (YOLACT++); () for none."""

    fpn_channels: int = 256
    head_levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    """Pyramid levels the prediction head runs on; level n has stride 2**n. 2 is the finest."""
    head_channels: int = 256
    head_depth: int = 1
    """3×3 convolutions before the three output layers."""
    protonet_level: int = 3
    """Pyramid level under the protonet (and the semantic branch); prototypes have twice its resolution."""
    protonet_channels: int = 256
    protonet_depth: tuple[int, int] = (3, 1)
    """3×3 convolutions before and after the ×2 upsampling."""
    num_prototypes: int = 32
    prototype_activation: ActivationName = "relu"
    semantic_branch: bool = True
    """Train a semantic segmentation layer beside the heads; it costs nothing at inference."""
    mask_rescoring: bool = False
    """YOLACT++: predict each mask's IoU and give mask scores."""
    crop_masks: bool = True
    """Cut each mask with its box."""
    max_masks_per_image: int = 100
    """Positives per image that enter the mask loss."""

    mean: tuple[float, float, float] = (123.68, 116.78, 103.94)
    std: tuple[float, float, float] = (58.40, 57.12, 57.38)
    """The network sees (RGB − mean) / std."""
    nms: NmsConfig = field(default_factory=NmsConfig)
    official: OfficialFile | None = None
    """The published checkpoint, if there is one."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_levels(self)
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"config {self.name!r} needs class names, each once")
        for name in ("input_size", "fpn_channels", "head_channels", "protonet_channels", "num_prototypes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of config {self.name!r} must be at least 1, not {getattr(self, name)}")
        if min(self.std) <= 0:
            raise ValueError(f"std of config {self.name!r} must be positive, not {self.std}")

    @property
    def num_classes(self) -> int:
        """Foreground classes C; class logits have C + 1 columns, background first."""
        return len(self.class_names)

    def level_size(self, level: int) -> int:
        """Side of the square feature map on a pyramid level: every stride-2 layer rounds up."""
        return -(-self.input_size // 2**level)

    @property
    def prototype_size(self) -> int:
        return 2 * self.level_size(self.protonet_level)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json` can write; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> YolactConfig:
        """Read what `to_dict` wrote, JSON's lists included. Raises `ValueError` for unknown or missing keys."""
        values = dict(values)
        for key, part in (("anchors", AnchorConfig), ("nms", NmsConfig), ("official", OfficialFile)):
            if isinstance(values.get(key), Mapping):
                values[key] = _from_mapping(part, values[key], key)
        config = _from_mapping(cls, values, "config")
        assert isinstance(config, cls)
        return config


def _check_choices(config: YolactConfig) -> None:
    for value, choices, what in (
        (config.backbone, get_args(BackboneName), "backbone"),
        (config.prototype_activation, get_args(ActivationName), "prototype_activation"),
    ):
        if value not in choices:
            raise ValueError(f"{what} {value!r} of config {config.name!r} is not one of {', '.join(choices)}")
    if config.deformable and (len(config.deformable) != 4 or not config.backbone.startswith("resnet")):
        raise ValueError(f"config {config.name!r}: deformable needs a ResNet and one (d, t) for each of its 4 stages")


def _check_levels(config: YolactConfig) -> None:
    levels = config.head_levels
    if not levels or list(levels) != sorted(set(levels)) or levels[0] < FINEST_LEVEL:
        raise ValueError(f"head_levels of config {config.name!r} must rise from {FINEST_LEVEL} or above, not {levels}")
    if len(config.anchors.scales) != len(levels):
        raise ValueError(
            f"config {config.name!r} has {len(levels)} head levels, but anchor scales for {len(config.anchors.scales)}"
        )
    if not FINEST_LEVEL <= config.protonet_level <= BACKBONE_TOP_LEVEL:
        raise ValueError(f"protonet_level of config {config.name!r} must be 2, 3, 4 or 5, not {config.protonet_level}")
    if config.mask_rescoring and config.prototype_size < SMALLEST_RESCORED:
        raise ValueError(
            f"mask_rescoring of config {config.name!r} needs prototypes of {SMALLEST_RESCORED} pixels or more, "
            f"not {config.prototype_size}: use a larger input_size or a finer protonet_level"
        )


def _from_mapping(kind: type, values: Mapping[str, Any], what: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)} in {what}: known are {', '.join(sorted(known))}")
    try:
        return kind(**{key: _tuples(value) for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{what} is incomplete or of the wrong kind: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _one_scale_each(*scales: float) -> tuple[tuple[float, ...], ...]:
    return tuple((scale,) for scale in scales)


def _octave_thirds(*scales: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(scale * 2 ** (third / 3) for third in range(3)) for scale in scales)


def _scaled(scales: tuple[tuple[float, ...], ...], input_size: int) -> tuple[tuple[float, ...], ...]:
    """The release's rule for other sizes than 550: whole pixels, rounded down."""
    return tuple(tuple(float(int(scale / 550 * input_size)) for scale in level) for level in scales)


def _published(repository: str, filename: str) -> OfficialFile:
    return OfficialFile(f"dbolya/{repository}", filename)


_COCO_SCALES = _one_scale_each(24.0, 48.0, 96.0, 192.0, 384.0)
_PLUS_ANCHORS = AnchorConfig(_octave_thirds(24.0, 48.0, 96.0, 192.0, 384.0))

_BASE = YolactConfig(
    name="yolact_base",
    input_size=550,
    backbone="resnet101",
    class_names=COCO_CLASSES,
    anchors=AnchorConfig(_COCO_SCALES, square=True),
    official=_published("yolact-base", "yolact_base_54_800000.pth"),
)
_RESNET50 = replace(
    _BASE,
    name="yolact_resnet50",
    backbone="resnet50",
    official=_published("yolact-resnet50", "yolact_resnet50_54_800000.pth"),
)
_PLUS_BASE = replace(
    _BASE,
    name="yolact_plus_base",
    anchors=_PLUS_ANCHORS,
    deformable=((0, 3), (4, 3), (23, 3), (3, 3)),
    mask_rescoring=True,
    official=_published("yolact-plus-base", "yolact_plus_base_54_800000.pth"),
)

_ALL = (
    _BASE,
    replace(
        _BASE,
        name="yolact_im400",
        input_size=400,
        anchors=AnchorConfig(_scaled(_COCO_SCALES, 400), square=True),
        official=None,
    ),
    replace(
        _BASE,
        name="yolact_im700",
        input_size=700,
        anchors=AnchorConfig(_scaled(_COCO_SCALES, 700), square=True),
        max_masks_per_image=300,
        official=_published("yolact-im700", "yolact_im700_54_800000.pth"),
    ),
    _RESNET50,
    replace(
        _RESNET50,
        name="yolact_resnet50_pascal",
        class_names=PASCAL_CLASSES,
        anchors=AnchorConfig(_one_scale_each(32.0, 64.0, 128.0, 256.0, 512.0)),
        official=None,
    ),
    replace(
        _BASE,
        name="yolact_darknet53",
        backbone="darknet53",
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        official=_published("yolact-darknet53", "yolact_darknet53_54_800000.pth"),
    ),
    _PLUS_BASE,
    replace(
        _PLUS_BASE,
        name="yolact_plus_resnet50",
        backbone="resnet50",
        deformable=((0, 1), (4, 1), (6, 1), (3, 1)),
        official=_published("yolact-plus-resnet50", "yolact_plus_resnet50_54_800000.pth"),
    ),
    YolactConfig(
        name="yolact_mobilenetv2",
        input_size=320,
        backbone="mobilenetv2",
        class_names=COCO_CLASSES,
        anchors=AnchorConfig(_scaled(_COCO_SCALES, 320)),
        fpn_channels=96,
        head_channels=96,
        protonet_channels=96,
    ),
    YolactConfig(
        # nuclei: hundreds of small round objects, hence fine anchors from stride 4 on and prototypes at stride 2;
        # 768 px measured better than 1,024, see models/nuclei.md
        name="nuclei",
        input_size=768,
        backbone="mobilenetv2",
        class_names=("nucleus",),
        anchors=AnchorConfig(_octave_thirds(10.0, 20.0, 44.0, 96.0), ratios=(1.0,)),
        fpn_channels=64,
        head_channels=64,
        head_levels=(2, 3, 4, 5),
        protonet_level=2,
        protonet_channels=32,
        protonet_depth=(2, 1),
        num_prototypes=16,
        max_masks_per_image=300,
        # Fast NMS costs crowded nuclei five points of AP50, and a floor of 0.05 half a point: see models/nuclei.md
        nms=NmsConfig(score_floor=0.02, top_k=500, max_detections=500, kind="standard"),
    ),
)

#: every named config; look up with `get_config` for a helpful error
CONFIGS: dict[str, YolactConfig] = {config.name: config for config in _ALL}


def get_config(config: str | YolactConfig) -> YolactConfig:
    """A config by name, or the config itself. Raises `ValueError` for an unknown name."""
    if isinstance(config, YolactConfig):
        return config
    if config not in CONFIGS:
        raise ValueError(f"unknown config {config!r}: known are {', '.join(CONFIGS)}")
    return CONFIGS[config]
