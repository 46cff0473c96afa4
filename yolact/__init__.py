"""YOLACT instance segmentation: models, official weights, prediction and losses.

Names are loaded when first used, so that `yolact.config` can be read without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolact.config import CONFIGS, YolactConfig
    from yolact.images.tile_config import TileConfig
    from yolact.inference.detections import Detections
    from yolact.inference.predictor import Predictor
    from yolact.network.model import RawPredictions, Yolact, build_yolact
    from yolact.training.losses import YolactWithLoss
    from yolact.weights.checkpoint import load_checkpoint, load_weights, save_checkpoint

__all__ = [
    "CONFIGS",
    "Detections",
    "Predictor",
    "RawPredictions",
    "TileConfig",
    "Yolact",
    "YolactConfig",
    "YolactWithLoss",
    "build_yolact",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]

_HOME = {
    "CONFIGS": "config",
    "Detections": "inference.detections",
    "Predictor": "inference.predictor",
    "RawPredictions": "network.model",
    "TileConfig": "images.tile_config",
    "Yolact": "network.model",
    "YolactConfig": "config",
    "YolactWithLoss": "training.losses",
    "build_yolact": "network.model",
    "load_checkpoint": "weights.checkpoint",
    "load_weights": "weights.checkpoint",
    "save_checkpoint": "weights.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'yolact' has no attribute {name!r}")
    value = getattr(import_module(f"yolact.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
