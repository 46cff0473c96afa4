"""Models for tests: a stand-in for a published checkpoint, and a tiny model that finds something everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support.parity_cases import own_case

from yolact import build_yolact, save_checkpoint
from yolact.config import CONFIGS, AnchorConfig, YolactConfig


def official_stand_in(config: str, folder: Path) -> Path:
    """A file in the release's format with the weights of the parity case of `config`."""
    return own_case(config).save_state_dict(folder / f"stand-in-{config}.pth")


def tiny_config(**changes: Any) -> YolactConfig:
    """Three classes and a small input: runs in milliseconds, and random weights score every class near 1/4."""
    tiny = replace(
        CONFIGS["yolact_mobilenetv2"],
        name="tiny",
        input_size=96,
        class_names=("round", "square", "other"),
        fpn_channels=16,
        head_channels=16,
        protonet_channels=16,
        num_prototypes=8,
    )
    return replace(tiny, **changes)


def tiny_training_config(**changes: Any) -> YolactConfig:
    """Two classes, two levels and anchors of small objects: trains in seconds, and learns."""
    tiny = tiny_config(
        input_size=64,
        class_names=("a", "b"),
        anchors=AnchorConfig(((12.0,), (24.0,)), ratios=(1.0,)),
        head_levels=(3, 4),
    )
    return replace(tiny, **changes)


def save_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_yolact(tiny_config())
    path = folder / f"tiny-{seed}.safetensors"
    save_checkpoint(model.eval(), path, provenance={"data": "none: random weights, for tests"})
    return path
