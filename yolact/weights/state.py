"""Reads state dicts of any origin safely, recognises their model by the shapes, and loads them strictly."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from yolact.config import CONFIGS, YolactConfig
from yolact.network.model import Yolact


@dataclass(frozen=True)
class Architecture:
    """What the shapes of a checkpoint's tensors say about its model."""

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


def inspect_state(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture that a state dict in this project's names was made for."""
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


def load_strictly(model: Yolact, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict in this project's names; every tensor must fit.

    Old files lack `num_batches_tracked` of batch norms: it is set to 0.

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


def read_pytorch_file(data: bytes, source: str) -> dict[str, Tensor]:
    """The state dict in the bytes of a `.pth` file, on the CPU. Code in the file does not run.

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
    except Exception as error:  # damaged bytes can raise anything in torch's reader
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
