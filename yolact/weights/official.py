"""Loads checkpoints of the original release (`yolact_*.pth`): translates their tensor names to this project's.

Loading is strict: a tensor that is missing, superfluous or of another shape is an error. Only the tensors of old
versions that the release itself ignores are ignored here too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from torch import Tensor

from yolact.config import CONFIGS, YolactConfig
from yolact.network.model import Yolact
from yolact.weights.state import architecture_of, load_strictly

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


def convert_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's state dict under this project's names, without leftovers; tensors are not changed."""
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


def load_official_state(model: Yolact, state: Mapping[str, Tensor], source: str) -> None:
    """Load the release's state dict into a model.

    Raises:
        ValueError: when `source` (named in the message) was made for another config.
    """
    _check_known_file(model.config, source)
    load_strictly(model, convert_official(state), source)


def _check_known_file(config: YolactConfig, source: str) -> None:
    """Refuse a published file of another config. Configs of 400, 550 and 700 px have the same tensors; names differ."""
    for other in CONFIGS.values():
        published = other.official is not None and os.path.basename(source) == other.official.filename
        if published and other.name != config.name and CONFIGS.get(config.name) == config:
            if architecture_of(other) != architecture_of(config):
                return  # loading will compare the tensors and say more
            raise ValueError(
                f"{source} is the published file of config {other.name!r}, not of {config.name!r}: use {other.name!r}"
            )
