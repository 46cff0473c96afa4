"""The original release's checkpoints (`yolact_*.pth`): their names, and how they become this project's.

Also ImageNet weights for backbones, in torchvision's names. Everything is loaded strictly: a tensor that is missing,
left over or of another shape is an error, except for the leftovers of old versions that the release itself drops.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from yolact.config import CONFIGS, YolactConfig
from yolact.model import Yolact

#: release → this project, tried in order; `fpn.lat_layers` and `fpn.pred_layers` count from C5 down
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\._preconv\.", "backbone.stem."),
    (r"backbone\.(.*)\.conv_offset_mask\.", r"backbone.\1.offset_mask."),
    (r"fpn\.lat_layers\.0\.", "fpn.lateral.5."),
    (r"fpn\.lat_layers\.1\.", "fpn.lateral.4."),
    (r"fpn\.lat_layers\.2\.", "fpn.lateral.3."),
    (r"fpn\.pred_layers\.0\.", "fpn.output.5."),
    (r"fpn\.pred_layers\.1\.", "fpn.output.4."),
    (r"fpn\.pred_layers\.2\.", "fpn.output.3."),
    (r"fpn\.downsample_layers\.0\.", "fpn.downsample.6."),
    (r"fpn\.downsample_layers\.1\.", "fpn.downsample.7."),
    (r"proto_net\.([024])\.", r"protonet.before.\1."),
    (r"proto_net\.8\.", "protonet.after.0."),
    (r"proto_net\.10\.", "protonet.project."),
    (r"prediction_layers\.0\.upfeature\.0\.", "head.trunk.0."),
    (r"prediction_layers\.0\.bbox_layer\.", "head.box_layer."),
    (r"prediction_layers\.0\.conf_layer\.", "head.class_layer."),
    (r"prediction_layers\.0\.mask_layer\.", "head.coefficient_layer."),
    (r"semantic_seg_conv\.", "semantic."),
    (r"maskiou_net\.maskiou_net\.", "mask_scoring.layers."),
)
#: tensors of older versions that the release drops when it loads: the backbone's earlier name, unused downsampling
_LEFTOVERS = re.compile(r"backbone\.layer\d|fpn\.downsample_layers\.([2-9]|\d\d)")


@dataclass(frozen=True)
class Architecture:
    """What the shapes in a checkpoint tell of its model."""

    backbone: str
    plus: bool
    num_classes: int
    anchors_per_cell: int
    num_prototypes: int

    def __str__(self) -> str:
        kind = "YOLACT++" if self.plus else "YOLACT"
        return (
            f"{kind} with {self.backbone}, {self.num_classes} classes, {self.anchors_per_cell} anchors per cell "
            f"and {self.num_prototypes} prototypes"
        )


def architecture_of(config: YolactConfig) -> Architecture:
    return Architecture(
        config.backbone,
        config.mask_rescoring,
        config.num_classes,
        config.anchors.per_cell,
        config.num_prototypes,
    )


def convert_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's state dict under this project's names, without old leftovers; the tensors are the same."""
    return {_rename(name): tensor for name, tensor in state.items() if not _LEFTOVERS.match(name)}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn("^" + pattern, replacement, name)
        if count:
            return renamed
    return name


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict uses the release's names."""
    return "prediction_layers.0.bbox_layer.weight" in state


def inspect_state(state: Mapping[str, Tensor]) -> Architecture:
    """What a state dict (in this project's names) looks like."""
    anchors = state["head.box_layer.weight"].shape[0] // 4
    if "backbone.stem.0.weight" in state:
        backbone = "darknet53"
    elif "backbone.layers.2.6.conv1.weight" in state:
        backbone = "resnet101"
    elif "backbone.layers.2.0.conv1.weight" in state:
        backbone = "resnet50"
    else:
        backbone = "mobilenetv2"
    return Architecture(
        backbone,
        any(name.startswith("mask_scoring.") for name in state),
        state["head.class_layer.weight"].shape[0] // anchors - 1,
        anchors,
        state["head.coefficient_layer.weight"].shape[0] // anchors,
    )


def load_official_state(model: Yolact, state: Mapping[str, Tensor], source: str) -> None:
    """Load the release's state dict into a model.

    Raises:
        ValueError: when `source` (named in the message) was made for another config.
    """
    _check_known_file(model.config, source)
    load_strictly(model, convert_official(state), source)


def load_strictly(model: Yolact, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict in this project's names; every tensor must fit.

    Batch norm's `num_batches_tracked`, which files from before it existed lack, counts as 0.

    Raises:
        ValueError: when a tensor is missing, left over or of another shape; says what the file looks like.
    """
    own = model.state_dict()
    state = dict(state)
    for name in own:
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, torch.zeros((), dtype=torch.int64))
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not part of the model" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if problems:
        raise ValueError(_misfit(model.config, state, source, problems))
    model.load_state_dict(state, strict=True, assign=any(tensor.is_meta for tensor in own.values()))


def _misfit(config: YolactConfig, state: Mapping[str, Tensor], source: str, problems: list[str]) -> str:
    if "head.box_layer.weight" not in state or "head.class_layer.weight" not in state:
        return f"{source} is not a YOLACT checkpoint: {problems[0]}"
    found, wanted = inspect_state(state), architecture_of(config)
    if found == wanted:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{source} does not fit config {config.name!r}: {problems[0]}{more}"
    fitting = [name for name, other in CONFIGS.items() if architecture_of(other) == found]
    remedy = f"; it fits {' or '.join(fitting)}" if fitting else ""
    return f"{source} looks like {found}, but config {config.name!r} is {wanted}{remedy}"


def _check_known_file(config: YolactConfig, source: str) -> None:
    """Base, 400 and 700 px have the same tensors: only the published name tells one file from another's config."""
    for other in CONFIGS.values():
        published = other.official is not None and os.path.basename(source) == other.official.filename
        if published and other.name != config.name and CONFIGS.get(config.name) == config:
            if architecture_of(other) != architecture_of(config):
                return  # the tensors tell, and better
            raise ValueError(
                f"{source} is the published file of config {other.name!r}, not of {config.name!r}: use {other.name!r}"
            )


def read_pytorch_file(data: bytes, source: str) -> dict[str, Tensor]:
    """The state dict in a `.pth` file's bytes, on the CPU, read without running any code that the file may hold.

    Raises:
        ValueError: when it is truncated, no PyTorch file, holds code, or is not a plain name → tensor table.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise ValueError(
                f"{source} holds Python objects or code besides tensors and is not loaded: "
                "use a file with a plain state dict, from a source you trust"
            ) from error
        raise ValueError(f"{source} is truncated or not a PyTorch file: fetch it again") from error
    except Exception as error:  # the reader raises whatever the damaged bytes lead it to
        raise ValueError(f"{source} is truncated or not a PyTorch file: fetch it again") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{source} is not a state dict: it must map names to tensors and nothing else")
    return dict(state)


def load_backbone_weights(model: Yolact, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights into the model's backbone, strictly.

    Args:
        model: whose backbone is filled; offset convolutions and biases of deformable layers keep their start values.
        state: torchvision's names for ResNets (`layer1.0.conv1.weight`) and MobileNetV2 (with or without `features.`),
            the release's for DarkNet-53 (`_preconv.0.weight`). The classifier is ignored.

    Raises:
        ValueError: when the weights belong to another backbone.
    """
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(("fc.", "classifier.")):
            continue
        name = re.sub(r"^layer(\d)\.", lambda match: f"layers.{int(match[1]) - 1}.", name)
        name = re.sub(r"^_preconv\.", "stem.", name)
        renamed[re.sub(r"^(\d+\.)", r"features.\1", name)] = tensor
    own = model.backbone.state_dict()
    optional = re.compile(r".*(num_batches_tracked|offset_mask\.(weight|bias)|conv2\.bias)$")
    misfits = [name for name in own if name not in renamed and not optional.match(name)]
    misfits += [name for name, tensor in renamed.items() if name not in own or own[name].shape != tensor.shape]
    if misfits:
        raise ValueError(
            f"these weights are not those of a {model.config.backbone} backbone: {misfits[0]} "
            f"(and {len(misfits) - 1} more) do not match"
        )
    model.backbone.load_state_dict(renamed, strict=False)
