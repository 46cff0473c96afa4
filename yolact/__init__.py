"""YOLACT instance segmentation: models, official weights, prediction and losses.

Names are loaded when first used, so that `yolact.config` can be read without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolact.checkpoint import load_checkpoint, load_weights, save_checkpoint
    from yolact.config import CONFIGS, YolactConfig
    from yolact.losses import YolactWithLoss
    from yolact.model import RawPredictions, Yolact, build_yolact
    from yolact.predictor import Detections, Predictor

__all__ = [
    "CONFIGS",
    "Detections",
    "Predictor",
    "RawPredictions",
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
    "Detections": "predictor",
    "Predictor": "predictor",
    "RawPredictions": "model",
    "Yolact": "model",
    "YolactConfig": "config",
    "YolactWithLoss": "losses",
    "build_yolact": "model",
    "load_checkpoint": "checkpoint",
    "load_weights": "checkpoint",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'yolact' has no attribute {name!r}")
    value = getattr(import_module(f"yolact.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
