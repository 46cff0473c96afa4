"""All that a run needs in order to go on: weights, average, optimiser, scaler, step, random generators."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolact.config import YolactConfig
from yolact.network.model import Yolact, build_yolact
from yolact.training.optimisation import WeightAverage
from yolact.weights.checkpoint import save_checkpoint

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
SCORES_FILE = "scores.json"


@dataclass
class TrainingState:
    """The changing parts of one worker's run; every worker holds the same."""

    config: YolactConfig
    """of the model to be, at whose input size it is validated and used"""
    model: Yolact
    """as it trains, perhaps on smaller windows"""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    step: int = 0
    """updates done"""
    best_mask_ap: float = -1.0

    def validated_model(self) -> Yolact:
        """A model with the weights that count, which are the average where there is one, at its own input size."""
        model = build_yolact(self.config)
        model.load_state_dict((self.model if self.average is None else self.average.model).state_dict())
        return model.eval()

    def save(self, folder: Path, settings: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Write a checkpoint: the whole state, and beside it the model alone, as anyone can use it."""
        state = {
            "settings": settings,
            "step": self.step,
            "best_mask_ap": self.best_mask_ap,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # data and mask sampling are functions of (seed, epoch, image); this covers whatever else draws a number
            "rng": torch.get_rng_state(),
        }
        torch.save(state, folder / STATE_FILE)
        save_checkpoint(self.validated_model(), folder / MODEL_FILE, provenance={**provenance, "step": self.step})
        (folder / SCORES_FILE).write_text(json.dumps({"step": self.step, "best_mask_ap": self.best_mask_ap}))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint that `save` wrote, whatever the number of workers was."""
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.model.load_state_dict(state["average"])
            self.average.updates = state["average_updates"]
        torch.set_rng_state(state["rng"])
        self.step = state["step"]
        self.best_mask_ap = state["best_mask_ap"]
