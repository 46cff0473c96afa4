"""Saves and loads weights: this project's own checkpoints, and `load_weights` for any kind of file.

An own checkpoint is a safetensors file. Its metadata hold the config, the class names and the provenance, so nothing is
guessed from a file name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from yolact.config import YolactConfig
from yolact.network.model import Yolact, build_yolact
from yolact.weights.files import FORMAT, is_own_checkpoint, read_bytes, read_own_header, resolve_weights, write_bytes
from yolact.weights.official import is_official, load_official_state
from yolact.weights.state import load_strictly, read_pytorch_file


@dataclass(frozen=True)
class LoadedWeights:
    """Which file a model's weights came from."""

    uri: str
    sha256: str
    """Of the file as read."""
    kind: Literal["official", "checkpoint"]
    provenance: Mapping[str, Any]
    """How the checkpoint was made, in its own words; empty for official files."""


def save_checkpoint(
    model: Yolact,
    path_or_uri: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model as safetensors with its config, class names and provenance.

    Args:
        model: on any device.
        path_or_uri: local path or fsspec URI; written in one piece.
        provenance: JSON values that say where the weights come from (data, recipe, scores, licence).
        dtype: stores floating tensors as this, e.g. `torch.float16` for half the size; None keeps each tensor's own.

    Raises:
        ValueError: when a value does not fit into `dtype`.
    """
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "class_names": json.dumps(model.config.class_names),
        "provenance": json.dumps(dict(provenance or {})),
    }
    write_bytes(path_or_uri, save_safetensors(tensors, metadata))


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.is_floating_point():
        narrow = tensor.to(dtype)
        if not torch.equal(narrow.isfinite(), tensor.isfinite()):
            raise ValueError(f"{name} has values that {dtype} cannot hold: save the checkpoint without dtype")
        tensor = narrow
    return tensor.contiguous()


def load_checkpoint(path_or_uri: str | os.PathLike[str]) -> Yolact:
    """The model that an own checkpoint describes: float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: when the file is missing, damaged or no own checkpoint.
    """
    return load_model(path_or_uri)[0]


def load_weights(model: Yolact, path_or_uri: str | os.PathLike[str] | None = None) -> LoadedWeights:
    """Fill a model from an official release file (`.pth`) or an own checkpoint, strictly.

    Args:
        model: whose config says what the file must hold.
        path_or_uri: local path or fsspec URI (`s3://`, `hf://` …); None takes the file that `resolve_weights` finds.

    Returns:
        Which file it was, with its SHA-256.

    Raises:
        ValueError: in one sentence, when the file is missing, damaged, holds code, or was made for another config.
    """
    source = os.fspath(resolve_weights(model.config) if path_or_uri is None else path_or_uri)
    data = read_bytes(source)
    if is_own_checkpoint(data):
        config, state, provenance = _read_own(data, source)
        if config.class_names != model.config.class_names:
            raise ValueError(
                f"{source} was trained for {_listed(config.class_names)}, "
                f"but config {model.config.name!r} has {_listed(model.config.class_names)}"
            )
        load_strictly(model, state, source)
        return LoadedWeights(source, _sha256(data), "checkpoint", provenance)
    state = read_pytorch_file(data, source)
    if not is_official(state):
        raise ValueError(f"{source} is not a YOLACT checkpoint: it has no prediction_layers.0.bbox_layer.weight")
    load_official_state(model, state, source)
    return LoadedWeights(source, _sha256(data), "official", {})


def load_model(
    path_or_uri: str | os.PathLike[str] | None = None, config: str | YolactConfig | None = None
) -> tuple[Yolact, LoadedWeights]:
    """Build and fill a model from whichever of weights and config is given.

    Args:
        path_or_uri: as for `load_weights`; may be None where the config has shipped or published weights.
        config: may be None where the weights are an own checkpoint, which carries its config.

    Returns:
        The model in evaluation mode, float32, on the CPU; which file it was filled from.

    Raises:
        ValueError: as `load_weights`; without either argument; for weights without a config if none is given.
    """
    if config is not None:
        with torch.device("meta"):
            model = build_yolact(config)
        loaded = load_weights(model, path_or_uri)
        return model.eval(), loaded
    if path_or_uri is None:
        raise ValueError("give weights, a config, or both")
    source = os.fspath(path_or_uri)
    data = read_bytes(source)
    if not is_own_checkpoint(data):
        raise ValueError(f"{source} does not carry its config: name one, e.g. yolact_base")
    own_config, state, provenance = _read_own(data, source)
    with torch.device("meta"):
        model = build_yolact(own_config)
    load_strictly(model, state, source)
    return model.eval(), LoadedWeights(source, _sha256(data), "checkpoint", provenance)


def _read_own(data: bytes, source: str) -> tuple[YolactConfig, dict[str, Tensor], dict[str, Any]]:
    config, provenance = read_own_header(data, source)
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{source} is truncated or not a safetensors file: fetch it again") from error
    state = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return config, state, provenance


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} classes ({shown})"
