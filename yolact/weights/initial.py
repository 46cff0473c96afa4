"""Initial weights for training: takes over the weights of another model, as far as they fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision
from safetensors.torch import load as load_safetensors
from torch import Tensor

from yolact.config import CONFIGS
from yolact.network.model import Yolact
from yolact.weights.files import is_own_checkpoint, read_bytes, resolve_weights
from yolact.weights.official import convert_official, is_official
from yolact.weights.state import load_backbone_weights, read_pytorch_file

#: fills the backbone with torchvision's ImageNet weights, downloaded once
IMAGENET = "imagenet"
#: leaves every weight random
RANDOM = "random"


@dataclass(frozen=True)
class InitialWeights:
    """Which tensors a model took over, and which it did not."""

    source: str
    loaded: tuple[str, ...]
    """tensors taken over"""
    remade: tuple[str, ...]
    """tensors that have another shape in the source, for example for another class count: random here"""
    missing: tuple[str, ...]
    """tensors that the source lacks: random here"""
    left_out: tuple[str, ...]
    """tensors of the source that the model has no place for"""

    def summary(self) -> str:
        """One line for people."""
        line = f"{self.source}: {len(self.loaded)} tensors taken over"
        for word, names in (("re-made", self.remade), ("not in it", self.missing), ("left out", self.left_out)):
            if names:
                line += f"; {len(names)} {word} ({', '.join(_grouped(names))})"
        return line


def _grouped(names: tuple[str, ...], limit: int = 6) -> list[str]:
    """The names; of a long list only the parts of the model that they belong to."""
    if len(names) > limit:
        names = tuple(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return [*names[:limit], *(["…"] if len(names) > limit else [])]


def initialise(model: Yolact, source: str | os.PathLike[str]) -> InitialWeights:
    """Fill a model, as far as they fit, with weights trained for something else.

    Args:
        model: filled in place.
        source: "imagenet", "random", the name of a config with shipped or published weights, or a path or URI. The file
            is an own checkpoint, an official release file, or a state dict of the backbone in torchvision's names. Of
            a whole model every tensor of the same name and shape is taken over. For another class count this leaves
            only the class layer random.

    Raises:
        ValueError: if the file cannot be read, or nothing of it fits the model.
    """
    name = os.fspath(source)
    if name == RANDOM:
        return InitialWeights(name, (), (), tuple(model.state_dict()), ())
    if name == IMAGENET:
        state = _imagenet_state(model.config.backbone)
    else:
        state = _read_state(str(resolve_weights(CONFIGS[name])) if name in CONFIGS else name)
    if not any(key.startswith("head.") for key in state):
        load_backbone_weights(model, state)
        own = tuple(model.state_dict())
        return InitialWeights(
            name,
            tuple(key for key in own if key.startswith("backbone.")),
            (),
            tuple(key for key in own if not key.startswith("backbone.")),
            tuple(key for key in state if key.startswith(("fc.", "classifier."))),
        )
    return _take_over(model, state, name)


def _read_state(source: str) -> dict[str, Tensor]:
    """The tensors of any weights file, under this project's names where they are a whole model's."""
    data = read_bytes(source)
    if is_own_checkpoint(data):
        return {name: t.float() if t.is_floating_point() else t for name, t in load_safetensors(data).items()}
    state = read_pytorch_file(data, source)
    return convert_official(state) if is_official(state) else state


def _take_over(model: Yolact, state: Mapping[str, Tensor], source: str) -> InitialWeights:
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"no tensor of {source} fits config {model.config.name!r}; was it made for another backbone?")
    model.load_state_dict(fitting, strict=False)
    return InitialWeights(
        source,
        tuple(name for name in own if name in fitting),
        tuple(name for name in own if name in state and name not in fitting),
        tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        tuple(sorted(name for name in state if name not in own)),
    )


def _imagenet_state(backbone: str) -> dict[str, Tensor]:
    builders = {"resnet50": "ResNet50_Weights", "resnet101": "ResNet101_Weights", "mobilenetv2": "MobileNet_V2_Weights"}
    if backbone not in builders:
        raise ValueError(f"torchvision has no ImageNet weights of {backbone}; give a file of your own")
    # version 1 of torchvision's weights: the original YOLACT was trained from them
    weights = getattr(torchvision.models, builders[backbone]).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise ValueError(
            f"cannot download {weights.url} ({error}); fetch it by other means and give its path as initial weights"
        ) from None
    return {name.removeprefix("features."): torch.as_tensor(tensor) for name, tensor in state.items()}
