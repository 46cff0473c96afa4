"""Models for tests: the golden stand-in for a published checkpoint, and a tiny one that finds something everywhere."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import torch
from support.shared_data import shared_path

from yolact import build_yolact, save_checkpoint
from yolact.config import CONFIGS, YolactConfig


def official_stand_in(config: str, folder: Path) -> Path:
    """A file in the release's format with the deterministic weights of the parity cases."""
    golden = shared_path("golden")
    spec = importlib.util.spec_from_file_location("reference_weights", golden / "reference_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((golden / "cases" / config / "state_dict.json").read_text())
    state = module.reference_state_dict(shapes, CONFIGS[config].num_classes + 1)
    path = folder / f"stand-in-{config}.pth"
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    return path


def tiny_config() -> YolactConfig:
    """Three classes and a small input: runs in milliseconds, and random weights score every class near 1/4."""
    return replace(
        CONFIGS["yolact_mobilenetv2"],
        name="tiny",
        input_size=96,
        class_names=("round", "square", "other"),
        fpn_channels=16,
        head_channels=16,
        protonet_channels=16,
        num_prototypes=8,
    )


def save_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_yolact(tiny_config())
    path = folder / f"tiny-{seed}.safetensors"
    save_checkpoint(model.eval(), path, provenance={"data": "none: random weights, for tests"})
    return path
