"""What the training tests share: plates, a tiny config as a file, the metrics of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.models import tiny_training_config

from jobs.train.options import TrainConfig


def tiny_config(folder: Path, **changes: Any) -> str:
    """A JSON file with the config of a model that trains in seconds; returns its path."""
    values = {**tiny_training_config(class_names=("nucleus",)).to_dict(), **changes}
    path = folder / "tiny.json"
    path.write_text(json.dumps(values))
    return str(path)


def draw_plates(folder: Path, count: int = 8, **options: Any) -> dict[str, str]:
    """Plates with their truth: the `annotations` and `images` of `yolact train`."""
    from jobs.plates import PlatesConfig, run

    run(PlatesConfig(str(folder), count, **{"height": 64, "width": 64, "density": 400, "mean_diameter": 16, **options}))
    return {"annotations": str(folder / "ground_truth.json"), "images": str(folder / "images")}


def read_metrics(output: Path) -> dict[int, dict[str, float]]:
    """Step → its losses, from metrics.jsonl; validations are left out. Fails where a step comes twice."""
    steps: dict[int, dict[str, float]] = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if "loss" in values:
            assert values["step"] not in steps, f"step {values['step']} comes twice"
            steps[values["step"]] = values
    return steps


def train_config(folder: Path, plates, **options):
    return TrainConfig(
        **{
            **plates,
            "output": str(folder / "run"),
            "config": tiny_config(folder),
            "init_weights": "random",
            "recipe": "nuclei",
            "precision": "float32",
            "freeze_batch_norm": False,
            "window_size": 0,
            "warmup_steps": 0,
            "batch_size": 4,
            "loader_processes": 0,
            "max_failures": 0,
            "max_steps": 6,
            "checkpoint_every": 2,
            "log_every": 1,
            **options,
        }
    )
