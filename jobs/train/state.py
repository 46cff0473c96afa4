"""The state that a training run needs to go on: weights, average, optimiser, scaler, counters, random generator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from jobs.train.options import TrainingSettings
from yolact.config import YolactConfig
from yolact.network.model import Yolact, build_yolact
from yolact.training.optimisation import WeightAverage
from yolact.weights.checkpoint import save_checkpoint

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
SCORES_FILE = "scores.json"


class SavedState(TypedDict):
    """What a state file holds: plain values and tensors, which PyTorch loads without running code."""

    settings: dict[str, Any]
    step: int
    skipped: int
    freezes_batch_norm: bool
    best_mask_ap: float
    model: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor] | None
    average_updates: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: torch.Tensor


@dataclass
class TrainingState:
    """The values of a run that change with its steps; every worker holds the same values."""

    config: YolactConfig
    """of the finished model; its input size is that of validation and use"""
    model: Yolact
    """in training, possibly on smaller windows"""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    freezes_batch_norm: bool
    """decided once for a run, because the parameters of the optimiser depend on it"""
    step: int = 0
    """steps done, skipped ones included"""
    skipped: int = 0
    """steps that changed no weights, because something was not finite"""
    skipped_in_a_row: int = 0
    """skipped steps since the last update; not saved, so that a run that continues starts from 0"""
    best_mask_ap: float = -1.0

    def validated_model(self) -> Yolact:
        """The model that is validated, at its own input size. Its weights are the average, if the run keeps one."""
        model = build_yolact(self.config)
        model.load_state_dict((self.model if self.average is None else self.average.model).state_dict())
        return model.eval()

    def save(self, folder: Path, settings: TrainingSettings, provenance: Mapping[str, Any]) -> None:
        """Write a checkpoint: the whole state, and in a file of its own the model, ready for use."""
        state: SavedState = {
            "settings": asdict(settings),
            "step": self.step,
            "skipped": self.skipped,
            "freezes_batch_norm": self.freezes_batch_norm,
            "best_mask_ap": self.best_mask_ap,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # samples and the choice of masks are functions of (seed, epoch, slot); this covers all other random numbers
            "rng": torch.get_rng_state(),
        }
        torch.save(state, folder / STATE_FILE)
        save_checkpoint(self.validated_model(), folder / MODEL_FILE, provenance={**provenance, "step": self.step})
        (folder / SCORES_FILE).write_text(json.dumps({"step": self.step, "best_mask_ap": self.best_mask_ap}))

    def restore(self, saved: SavedState) -> None:
        """Take over a saved state. The number of workers may have been another one."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(_as_fused(saved["optimizer"]))
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None and saved["average"] is not None:
            self.average.model.load_state_dict(saved["average"])
            self.average.updates = saved["average_updates"]
        torch.set_rng_state(saved["rng"])
        self.step = saved["step"]
        self.skipped = saved["skipped"]
        self.best_mask_ap = saved["best_mask_ap"]


def _as_fused(saved: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimiser for a fused one: earlier checkpoints are of optimisers that were not."""
    return {**saved, "param_groups": [{**group, "fused": True, "foreach": None} for group in saved["param_groups"]]}


def read_state(folder: Path) -> SavedState:
    """Read the state of a checkpoint that `TrainingState.save` wrote."""
    saved: SavedState = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    return saved
