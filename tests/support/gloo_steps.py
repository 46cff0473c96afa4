"""One of several gloo processes that train together. It saves the result of each step, for a test to compare.

python tests/support/gloo_steps.py FOLDER WORKER NUM_WORKERS
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from jobs.train.options import TrainConfig, TrainingSettings, resolve_settings
from jobs.train.state import TrainingState
from jobs.train.step import TrainingStep
from yolact.coco.reading import parse_coco
from yolact.config import AnchorConfig, YolactConfig
from yolact.network.model import build_yolact
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import EpochSampler, TrainingDataset, collate
from yolact.training.optimisation import build_optimizer, freeze_batch_norm
from yolact.training.packed import PackedImages
from yolact.training.targets import TargetMaker

STEPS, BATCH, SIDE = 4, 8, 64
#: the step (from 1) whose last image is not a number, on whichever worker it falls
POISONED = 2

CONFIG = YolactConfig(
    name="tiny",
    input_size=SIDE,
    backbone="mobilenetv2",
    class_names=("a", "b"),
    anchors=AnchorConfig(((12.0,), (24.0,)), ratios=(1.0,)),
    head_levels=(3, 4),
    fpn_channels=16,
    head_channels=16,
    protonet_channels=16,
    num_prototypes=8,
    max_masks_per_image=3,
)


def build_dataset() -> TrainingDataset:
    """Images with zero to four squares."""
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    files = {}
    for image_id in range(10):
        pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        for _ in range(image_id % 5):
            x, y, side = (int(value) for value in (*rng.integers(0, SIDE - 24, 2), rng.integers(8, 24)))
            pixels[y : y + side, x : x + side] = rng.integers(90, 250, 3)
            corners = [x, y, x + side, y, x + side, y + side, x, y + side]
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": image_id, "category_id": 1 + number % 2, "bbox": [x, y, side, side],
                 "segmentation": [corners]}
            )  # fmt: skip
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        files[f"{image_id}.png"] = stream.getvalue()
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": SIDE, "width": SIDE})
    augment = build_augmentation("microscopy", CONFIG.input_size, CONFIG.prototype_size)
    return TrainingDataset(PackedImages(parse_coco(content)), files.__getitem__, augment, TargetMaker.of(CONFIG))


def build_settings(**changes: object) -> TrainingSettings:
    """Plain SGD without clipping, so that a gradient stays as it was summed over the workers."""
    flags = TrainConfig("", "", config="nuclei", optimizer="sgd", learning_rate=0.01, batch_size=BATCH, max_steps=STEPS)
    return replace(resolve_settings(flags), warmup_steps=0, clip_gradient=0.0, ema_decay=0.0, **changes)


def build_state(settings: TrainingSettings) -> TrainingState:
    """A tiny model from seed 0 with frozen batch norm."""
    torch.manual_seed(0)
    model = build_yolact(CONFIG)
    freeze_batch_norm(model)
    optimizer = build_optimizer(model, settings.optimizer, settings.peak_learning_rate, settings.weight_decay)
    return TrainingState(CONFIG, model, optimizer, torch.amp.GradScaler("cpu", enabled=False), None, True)


def main(folder: Path, worker: int, num_workers: int) -> None:
    torch.set_num_threads(1)
    if num_workers > 1:
        dist.init_process_group("gloo", f"file://{folder}/store-{num_workers}", rank=worker, world_size=num_workers)
    settings = build_settings()
    state = build_state(settings)
    take_step = TrainingStep(state, settings, torch.device("cpu"), torch.float32)
    dataset = build_dataset()
    done = []
    for items in EpochSampler(len(dataset), BATCH, STEPS, worker=worker, num_workers=num_workers):
        batch = collate([dataset[item] for item in items])
        if state.step + 1 == POISONED and worker == num_workers - 1:
            images = batch.images.float()
            images[-1] = torch.nan
            batch = batch._replace(images=images)
        (result,) = take_step(batch)
        gradients = [parameter.grad.flatten() for parameter in state.model.parameters() if parameter.grad is not None]
        done.append(
            {
                "images": batch.image_ids,
                "losses": dict(result.losses),
                "skipped": result.skipped,
                "gradient": torch.cat(gradients).clone(),
                "weights": torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()]),
            }
        )
    torch.save(done, folder / f"steps-{num_workers}-{worker}.pt")
    if num_workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
