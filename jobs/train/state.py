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
    """The parts of one worker's run that change; every worker holds the same."""

    config: YolactConfig
    """of the model that the run makes, at whose input size it is validated and used"""
    model: Yolact
    """as it trains, perhaps on smaller windows"""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    freezes_batch_norm: bool
    """decided once for a run: which parameters the optimiser holds depends on it"""
    step: int = 0
    """steps done, skipped ones included"""
    skipped: int = 0
    """steps that left the weights alone, because something was not finite"""
    skipped_in_a_row: int = 0
    """of them, those since the last update; not saved, so that a run that goes on has all its chances again"""
    best_mask_ap: float = -1.0

    def validated_model(self) -> Yolact:
        """A model at its own input size with the weights that are validated: the average, where there is one."""
        model = build_yolact(self.config)
        model.load_state_dict((self.model if self.average is None else self.average.model).state_dict())
        return model.eval()

    def save(self, folder: Path, settings: TrainingSettings, provenance: Mapping[str, Any]) -> None:
        """Write a checkpoint: the whole state, and beside it the model alone, as anyone can use it."""
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
        """Go on from a saved state, whatever the number of workers was."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None and saved["average"] is not None:
            self.average.model.load_state_dict(saved["average"])
            self.average.updates = saved["average_updates"]
        torch.set_rng_state(saved["rng"])
        self.step = saved["step"]
        self.skipped = saved["skipped"]
        self.best_mask_ap = saved["best_mask_ap"]


def read_state(folder: Path) -> SavedState:
    """Read the state of a checkpoint that `TrainingState.save` wrote."""
    saved: SavedState = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    return saved
