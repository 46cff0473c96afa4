"""From a data set to the batches of one training worker."""

from __future__ import annotations

from dataclasses import replace

import torch

from jobs.train.broken_images import GuardedDataset
from jobs.train.data import TrainingImages
from jobs.train.options import TrainingSettings
from yolact.config import YolactConfig
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import EpochSampler, TrainingDataset, TrainingSample, collate
from yolact.training.targets import TargetMaker


def build_loader(
    images: TrainingImages,
    settings: TrainingSettings,
    config: YolactConfig,
    *,
    first_step: int,
    worker: int = 0,
    num_workers: int = 1,
) -> torch.utils.data.DataLoader[TrainingSample]:
    """Batches of one worker, from a step to the last one of the settings.

    Args:
        images: what to train on.
        settings: of the run.
        config: of the model that the run makes. Where the run trains on windows, their side replaces its input size.
        first_step: 0-based.
        worker: index of this worker.
        num_workers: how many workers share each batch.

    The iterator raises `BrokenImageError` for an image that cannot be used and may not be left out.
    """
    trained = window_config(config, settings)
    augment = build_augmentation(
        settings.augmentation,
        trained.input_size,
        trained.prototype_size,
        window_scale=trained.input_size / config.input_size,
    )
    dataset = TrainingDataset(
        images.images,
        images.read_bytes,
        augment,
        TargetMaker.of(trained),
        settings.seed,
        settings.pixels_per_window or None,
    )
    sampler = EpochSampler(
        len(dataset), settings.batch_size, settings.last_step, first_step, worker, num_workers, settings.seed
    )
    processes = settings.loader_processes
    return torch.utils.data.DataLoader(
        GuardedDataset(dataset, images.skip_broken),
        batch_sampler=sampler,
        num_workers=processes,
        collate_fn=collate,
        prefetch_factor=4 if processes else None,
        worker_init_fn=_use_one_thread,
        multiprocessing_context="fork" if processes else None,
        pin_memory=settings.use_gpu,  # so that copies to the GPU need not wait
    )


def window_config(config: YolactConfig, settings: TrainingSettings) -> YolactConfig:
    """The config of the network while it trains: that of the model, at the size of the training windows."""
    return replace(config, input_size=settings.window_size or config.input_size)


def _use_one_thread(_: int) -> None:
    """Loader processes share the cores with the network: with more threads each, all of them would be slower."""
    torch.set_num_threads(1)
