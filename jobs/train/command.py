"""The driver of a training run: checks what was asked for, starts Ray Train, and keeps the result."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import ray.train
import ray.train.torch

from jobs import storage
from jobs.runtime.errors import EXIT_OK, JobError, UsageError
from jobs.runtime.logs import configure_logging, in_worker, run_id
from jobs.runtime.metrics import JobMetrics
from jobs.runtime.options import parse_count_range
from jobs.runtime.ray_session import ray_session
from jobs.train.data import open_image_set
from jobs.train.log import Board, Ticker, print_now
from jobs.train.options import TrainConfig, TrainingRecipe, resolve_settings
from jobs.train.state import MODEL_FILE
from jobs.train.worker import RunPlan, train_worker
from yolact.coco.annotations import AnnotatedImages
from yolact.config import CONFIGS, YolactConfig, get_config
from yolact.weights.files import read_bytes, read_own_header
from yolact.weights.initial import IMAGENET, RANDOM

log = logging.getLogger(__name__)

BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"


def run_training(config: TrainConfig) -> int:
    """See `jobs.train.run`."""
    config = _with_absolute_paths(config)
    run = run_id(config.output)
    configure_logging(config.log_format, run)
    settings = resolve_settings(config)
    workers = parse_count_range("--num-workers", config.num_workers)
    train = open_image_set(
        config.annotations,
        config.images,
        "training set",
        score_threshold=config.score_threshold,
        skip_broken=config.skip_broken,
    )
    validation = None
    if config.val_annotations is not None:
        validation = open_image_set(
            config.val_annotations, config.val_images, "validation set", skip_broken=config.skip_broken
        )
        if validation.data.class_names != train.data.class_names:
            raise UsageError(
                f"the validation set has classes {', '.join(validation.data.class_names)}, "
                f"the training set {', '.join(train.data.class_names)}; they must be the same"
            )
    model_config = model_config_for(config, train.data)
    if settings["window_size"] > model_config.input_size:
        raise UsageError(
            f"--window-size {settings['window_size']} is larger than the input of {model_config.name}, "
            f"{model_config.input_size}: give at most that, or 0 for whole pictures"
        )
    with ray_session(config.address):
        board = ray.remote(num_cpus=0)(Board).remote()
        plan = RunPlan(
            settings=settings,
            model_config=model_config,
            train=train,
            validation=validation,
            output=config.output,
            provenance=_provenance(config, settings, train.data),
            threads_per_worker=config.cpus_per_worker or _cpus_per_worker(workers),
            board=board,
            metrics=JobMetrics("train", run),
        )
        objects = sum(len(image.annotations) for image in train.data.images)
        say = log.info if config.log_format == "json" else print_now
        say(f"{len(train.data.images)} images, {objects} objects to train on")
        with Ticker(board, say):
            result = _fit(_trainer(config, plan, workers))
        return _finish(config.output, result)


def model_config_for(config: TrainConfig, train: AnnotatedImages) -> YolactConfig:
    """The named config with the data's classes and the ablations asked for.

    Raises:
        UsageError: for an unknown config or a value it cannot take.
    """
    try:
        named = _base_config(config)
        changes: dict[str, Any] = {"class_names": train.class_names, "semantic_branch": config.semantic_loss}
        if config.num_prototypes is not None:
            changes["num_prototypes"] = config.num_prototypes
        if train.class_names != named.class_names:
            changes["official"] = None
        return replace(named, **changes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _base_config(config: TrainConfig) -> YolactConfig:
    """The config before the data's classes are put in. Raises `ValueError`."""
    if config.config is None:
        if config.init_weights in CONFIGS:
            return CONFIGS[config.init_weights]
        if config.init_weights in (IMAGENET, RANDOM):
            raise ValueError("name a --config, or give an own checkpoint as --init-weights, which carries its config")
        return read_own_header(read_bytes(config.init_weights), config.init_weights)[0]
    if config.config.endswith(".json"):
        return YolactConfig.from_dict(json.loads(read_bytes(config.config)))
    return get_config(config.config)


def _trainer(config: TrainConfig, plan: RunPlan, workers: tuple[int, int]) -> ray.train.torch.TorchTrainer:
    parent, _, name = config.output.rstrip("/").rpartition("/")
    storage_path, filesystem = parent, None
    if "://" in parent:
        client, storage_path = storage.open_filesystem(parent)
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(client))
    return ray.train.torch.TorchTrainer(
        in_worker(train_worker),
        train_loop_config={"plan": plan},
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers[0] if workers[0] == workers[1] else workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            # Ray keeps the latest beside the best, for going on
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="mask_ap"),
        ),
    )


def _fit(trainer: ray.train.torch.TorchTrainer) -> Any:
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise JobError(f"training failed: {_reason(error)}; run the same command again to go on") from error


def _reason(error: Exception) -> str:
    """The last line of what the first failed worker said; the rest is its traceback."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    lines = str(failures[min(failures)]).strip().splitlines()
    return storage.one_line(lines[-1] if lines else type(error).__name__)


def _finish(output: str, result: Any) -> int:
    outcome = result.return_value
    if outcome["stopped"] is not None:
        raise JobError(f"training stopped at {outcome['stopped']}")
    scored = [(metrics.get("mask_ap", -1.0), metrics["step"], kept) for kept, metrics in result.best_checkpoints]
    best = max(scored, key=lambda entry: entry[:2])[2]
    for checkpoint, file_name in ((best, BEST_FILE), (result.checkpoint, LAST_FILE)):
        with checkpoint.as_directory() as folder:
            storage.put_atomic(f"{output}/{file_name}", Path(folder, MODEL_FILE).read_bytes())
    ap = outcome["best_mask_ap"]
    scored_line = f", best mask AP {ap:.4f}" if ap >= 0 else ""
    print(f"done: {outcome['step']} steps{scored_line}; {output}/{BEST_FILE}")
    return EXIT_OK


def _provenance(config: TrainConfig, settings: dict[str, Any], train: AnnotatedImages) -> dict[str, Any]:
    recipe = {part.name: settings[part.name] for part in fields(TrainingRecipe)}
    return {
        "data": os.path.basename(config.annotations),
        "images": len(train.images),
        "init_weights": os.path.basename(config.init_weights),
        "recipe": recipe,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
    }


def _cpus_per_worker(workers: tuple[int, int]) -> int:
    return max(1, (os.cpu_count() or 1) // workers[1])


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Workers run elsewhere: local paths must not depend on the working directory."""
    changes = {}
    for name in ("annotations", "images", "val_annotations", "val_images", "output", "init_weights"):
        value = getattr(config, name)
        if value is None or "://" in value or value in (IMAGENET, RANDOM, *CONFIGS):
            continue
        changes[name] = os.path.abspath(os.path.expanduser(value))
    return replace(config, **changes)
