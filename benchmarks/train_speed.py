"""Compares the training speed of `yolact train` with that of a bare PyTorch loop over the same loader.

    python -m benchmarks.train_speed --annotations instances_train.json --images train/ --config nuclei --steps 60

Both run the same steps on the same cores, one after the other. The first 20 steps are not timed, because compilation,
caches and the loader's first batches slow them down. Expect a ratio of at least 0.9 on a quiet machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import run_benchmark
from jobs.train.command import model_config_for
from jobs.train.data import open_image_set
from jobs.train.loader import build_loader, window_config
from jobs.train.options import RECIPES, TrainConfig, resolve_settings
from jobs.train.worker import training_dtype
from yolact.network.model import build_yolact
from yolact.training.colours import change_colours
from yolact.training.losses import YolactWithLoss
from yolact.training.optimisation import WeightAverage, build_optimizer, freeze_batch_norm
from yolact.weights.initial import initialise

#: steps that are not timed
WARMUP_STEPS = 20


@dataclass(frozen=True)
class TrainingBenchConfig:
    """Options of the measurement."""

    annotations: str
    """COCO instances JSON"""
    images: str
    """folder of the images"""
    config: str = "nuclei"
    """model config"""
    init_weights: str = "random"
    """weights to start from; they do not change the speed"""
    steps: int = 60
    """timed steps"""
    rounds: int = 3
    """how often both are measured; the medians are compared"""


def bare_loop(config: TrainingBenchConfig) -> float:
    """Images per second of a short loop without Ray that makes the same updates; runs in this process."""
    last_step = WARMUP_STEPS + config.steps
    flags = TrainConfig(
        annotations=config.annotations,
        images=config.images,
        output="",
        config=config.config,
        init_weights=config.init_weights,
        stop_after=last_step,
    )
    settings = resolve_settings(flags)
    images = open_image_set(config.annotations, config.images, "training set")
    model_config = model_config_for(flags, images.data)
    model = build_yolact(window_config(model_config, settings)).to(memory_format=torch.channels_last)
    initialise(model, config.init_weights)
    freeze_batch_norm(model)
    trainable = YolactWithLoss(model)
    optimizer = build_optimizer(model, settings.optimizer, settings.peak_learning_rate, settings.weight_decay)
    average = WeightAverage(model, settings.ema_decay)
    dtype = training_dtype(settings.precision, torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model_config.mean, model_config.std))
    loader = build_loader(images.pack(), settings, model_config, first_step=0)
    start = time.perf_counter()
    for step, batch in enumerate(loader, start=1):
        trainable.train()
        freeze_batch_norm(model)
        pixels = batch.images if batch.colours is None else change_colours(batch.images, batch.colours)
        pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses = trainable(pixels, batch.targets)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient)
        optimizer.step()
        average.update()
        if step == WARMUP_STEPS:
            start = time.perf_counter()
    return config.steps * settings.batch_size / (time.perf_counter() - start)


def ray_loop(config: TrainingBenchConfig) -> float:
    """Images per second of `yolact train` with one worker, from the times in its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        last_step = WARMUP_STEPS + config.steps
        flags = {
            "annotations": config.annotations,
            "images": config.images,
            "config": config.config,
            "init-weights": config.init_weights,
            "output": f"{folder}/run",
            "stop-after": last_step,
            "checkpoint-every": 10**9,
            "address": "local",
        }
        arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "jobs", "train", *arguments], check=True)
        lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    times = {values["step"]: values["time"] for values in map(json.loads, lines)}

    batch_size = RECIPES[config.config if config.config in RECIPES else "paper"].batch_size
    return config.steps * batch_size / float(times[last_step] - times[WARMUP_STEPS])


def main(config: TrainingBenchConfig) -> None:
    """Measure both in turn and print the figures."""
    bare, ray = [], []
    for _ in range(config.rounds):
        bare.append(bare_loop(config))
        ray.append(ray_loop(config))
        print(f"bare loop {bare[-1]:.2f} images/s, yolact train {ray[-1]:.2f} images/s", flush=True)
    ratio = statistics.median(ray) / statistics.median(bare)
    print(f"median {statistics.median(bare):.2f} and {statistics.median(ray):.2f} images/s: ratio {ratio:.3f}")


if __name__ == "__main__":
    run_benchmark(TrainingBenchConfig, __doc__, main)
