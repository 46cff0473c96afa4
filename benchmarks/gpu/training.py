"""One training step on the device, without the loader."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.launches import count_launches
from benchmarks.gpu.machine import seconds_per_call
from jobs.train.options import TrainConfig, resolve_settings
from jobs.train.state import TrainingState
from jobs.train.step import TrainingStep
from yolact.config import YolactConfig
from yolact.network.model import build_yolact
from yolact.training.colours import ColourChange
from yolact.training.dataset import TrainingBatch
from yolact.training.optimisation import WeightAverage, build_optimizer, freeze_batch_norm
from yolact.training.targets import ImageTargets, TargetMaker, batch_targets

#: objects of each image; COCO's photos have about seven
OBJECTS = 7


def step_speed(device: torch.device, batch_size: int) -> dict[str, Any]:
    """Images/s and, on a card, kernels and waits of a step with R-50."""
    flags = TrainConfig(annotations="", images="", output="", config="yolact_resnet50", batch_size=batch_size)
    settings = resolve_settings(flags)
    model = build_yolact("yolact_resnet50").to(device).to(memory_format=torch.channels_last)
    freeze_batch_norm(model)
    optimizer = build_optimizer(model, settings.optimizer, 1e-6, settings.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
    state = TrainingState(model.config, model, optimizer, scaler, average, freezes_batch_norm=True)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    step = TrainingStep(state, settings, device, dtype)
    batch = make_batch(batch_size, model.config)
    seconds = seconds_per_call(lambda: step(batch), device)
    return {"batch": batch_size, "images_per_second": batch_size / seconds} | count_launches(
        lambda: step(batch), device
    )


def make_batch(count: int, config: YolactConfig) -> TrainingBatch:
    """Noise with rectangular objects of all sizes."""
    rng = torch.Generator().manual_seed(0)
    size = config.input_size
    make_targets = TargetMaker.of(config)
    targets: list[ImageTargets] = []
    for _ in range(count):
        first = (torch.rand(OBJECTS, 2, generator=rng) * 0.6 * size).long()
        sides = (torch.rand(OBJECTS, 2, generator=rng) * 0.35 * size).long() + 12
        boxes = torch.cat([first, first + sides], dim=1)
        masks = torch.zeros(OBJECTS, size, size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        labels = torch.randint(config.num_classes, (OBJECTS,), generator=rng)
        crowd = torch.zeros(OBJECTS, dtype=torch.bool)
        targets.append(
            make_targets({"boxes": boxes.float(), "labels": labels, "masks": masks, "is_crowd": crowd, "seed": 0})
        )
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=rng)
    changes = torch.tensor([ColourChange(brightness=10.0, contrast=1.2, saturation=0.8, hue=9.0)] * count)
    return TrainingBatch(images, batch_targets(targets), changes, list(range(count)))
