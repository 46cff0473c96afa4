"""The driver of a training run: checks the options, starts Ray Train, and keeps the result."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray.train
import ray.train.torch

from jobs import storage
from jobs.runtime.cluster import alive_nodes, node_groups
from jobs.runtime.errors import EXIT_OK, JobError, UsageError
from jobs.runtime.interrupts import stopped_by_sigterm
from jobs.runtime.logs import configure_logging, in_worker, run_id
from jobs.runtime.metrics import JobMetrics
from jobs.runtime.ray_session import ray_session
from jobs.table.policy_file import read_policy
from jobs.train.data import ImageSet, open_image_set
from jobs.train.lines import LinePrinter, print_line, start_line_queue
from jobs.train.network import GlooConfig
from jobs.train.options import (
    TrainConfig,
    TrainingRecipe,
    TrainingSettings,
    check_workers,
    resolve_settings,
    steps_of_epochs,
)
from jobs.train.room import NodeShare, check_room, share_of_node
from jobs.train.state import MODEL_FILE
from jobs.train.worker import RunOutcome, RunPlan, train_worker
from yolact.coco.annotations import AnnotatedImages
from yolact.config import CONFIGS, YolactConfig, get_config
from yolact.training.dataset import slots_of
from yolact.weights.files import read_bytes, read_own_header
from yolact.weights.initial import IMAGENET, RANDOM

log = logging.getLogger(__name__)

BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"


def run_training(config: TrainConfig) -> int:
    """See `jobs.train.run`."""
    config = _with_absolute_paths(config)
    run = run_id(config.output)
    configure_logging(config.log_format, run)
    say: Callable[[str], None] = log.info if config.log_format == "json" else print_line
    settings = resolve_settings(config)
    workers = check_workers(config, settings)
    train, validation = _open_data(config, say)
    packed = train.pack()
    if config.epochs is not None:
        slots = int(slots_of(packed.images, settings.pixels_per_window or None).sum())
        settings = replace(settings, max_steps=steps_of_epochs(config.epochs, slots, settings.batch_size))
    model_config = model_config_for(config, train.data)
    _check_window(settings, model_config)
    _describe(settings, train.data, say)
    # Ray sets a handler of SIGTERM when it starts, so this one comes after it
    with ray_session(config.address), stopped_by_sigterm():
        nodes, groups = alive_nodes(), node_groups()
        share = share_of_node(config, nodes, groups)
        check_room(nodes, groups, workers[0], share, config.use_gpu)
        lines = start_line_queue()
        plan = RunPlan(
            settings=replace(settings, loader_processes=share.loader_processes),
            model_config=model_config,
            train=packed,
            validation=validation,
            output=config.output,
            provenance=_provenance(config, settings, train.data),
            threads_per_worker=config.cpus_per_worker or _cpus_per_worker(workers),
            lines=lines,
            metrics=JobMetrics("train", run),
        )
        with LinePrinter(lines, say):
            result = _fit(_trainer(config, plan, workers, share))
        return _finish(config.output, result)


def _open_data(config: TrainConfig, say: Callable[[str], None]) -> tuple[ImageSet, ImageSet | None]:
    """The training set and the validation set. Raises `UsageError`."""
    policy = None if config.policy is None else read_policy(config.policy)
    train = open_image_set(
        config.annotations,
        config.images,
        "training set",
        score_threshold=config.score_threshold,
        policy=policy,
        skip_broken=config.skip_broken,
    )
    validation = None
    if config.val_annotations is not None:
        validation = open_image_set(
            config.val_annotations,
            config.val_images,
            "validation set",
            policy=policy,
            skip_broken=config.skip_broken,
        )
        if validation.data.class_names != train.data.class_names:
            raise UsageError(
                f"the validation set has classes {', '.join(validation.data.class_names)}, "
                f"the training set {', '.join(train.data.class_names)}; they must be the same"
            )
    return _with_objects_only(train, say), validation


def _with_objects_only(train: ImageSet, say: Callable[[str], None]) -> ImageSet:
    """The training set without images that have no objects: the release does not train on them either."""
    kept = tuple(
        image for image in train.data.images if any(not annotation.is_crowd for annotation in image.annotations)
    )
    left_out = len(train.data.images) - len(kept)
    if left_out:
        say(f"{left_out} of {len(train.data.images)} images have no objects and are left out")
    return replace(train, data=replace(train.data, images=kept))


def _check_window(settings: TrainingSettings, model_config: YolactConfig) -> None:
    """Raises `UsageError` where the training windows are larger than the network's input."""
    if settings.window_size > model_config.input_size:
        raise UsageError(
            f"--window-size {settings.window_size} is larger than the input of {model_config.name}, "
            f"{model_config.input_size}: give at most that, or 0 for whole images"
        )


def _describe(settings: TrainingSettings, train: AnnotatedImages, say: Callable[[str], None]) -> None:
    """Print what is learnt and how, and warn if the run is too short for its schedule."""
    objects = sum(len(image.annotations) for image in train.images)
    say(f"{len(train.images)} images, {objects} objects to train on")
    say(
        f"recipe {settings.recipe} ({settings.recipe_reason}): {settings.max_steps} steps of {settings.batch_size} "
        f"images, {settings.optimizer} at {settings.peak_learning_rate:.2g}, augmentation {settings.augmentation}"
    )
    if settings.max_steps <= settings.warmup_steps:
        log.warning(
            "the run of %d steps ends within its warm-up of %d: the learning rate never reaches its peak; "
            "give more --max-steps or fewer --warmup-steps",
            settings.max_steps,
            settings.warmup_steps,
        )


def model_config_for(config: TrainConfig, train: AnnotatedImages) -> YolactConfig:
    """The named config with the classes of the data and the changes that the options ask for.

    Raises:
        UsageError: for an unknown config or a value it cannot take.
    """
    try:
        named = _base_config(config)
        changes: dict[str, Any] = {"class_names": train.class_names, "semantic_branch": config.semantic_loss}
        for name in ("num_prototypes", "max_masks_per_image"):
            if getattr(config, name) is not None:
                changes[name] = getattr(config, name)
        if train.class_names != named.class_names:
            changes["official"] = None
        return replace(named, **changes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _base_config(config: TrainConfig) -> YolactConfig:
    """The config with the classes of its name or file. Raises `ValueError`."""
    if config.config is None:
        if config.init_weights in CONFIGS:
            return CONFIGS[config.init_weights]
        if config.init_weights in (IMAGENET, RANDOM):
            raise ValueError("name a --config, or give an own checkpoint as --init-weights, which carries its config")
        return read_own_header(read_bytes(config.init_weights), config.init_weights)[0]
    if config.config.endswith(".json"):
        return YolactConfig.from_dict(json.loads(read_bytes(config.config)))
    return get_config(config.config)


def _trainer(
    config: TrainConfig, plan: RunPlan, workers: tuple[int, int], share: NodeShare
) -> ray.train.torch.TorchTrainer:
    parent, _, name = config.output.rstrip("/").rpartition("/")
    storage_path, filesystem = parent, None
    if not storage.is_local(parent):
        client, storage_path = storage.open_filesystem(parent)
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(client))
    return ray.train.torch.TorchTrainer(
        in_worker(train_worker),
        train_loop_config={"plan": plan},
        torch_config=ray.train.torch.TorchConfig("nccl") if config.use_gpu else GlooConfig("gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers[0] if workers[0] == workers[1] else workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": share.cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            # Ray keeps the latest checkpoint beside the best one
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="mask_ap"),
        ),
    )


def _fit(trainer: ray.train.torch.TorchTrainer) -> ray.train.Result:
    """Run the training to its end.

    Raises:
        JobError: if it failed.
        KeyboardInterrupt: on Ctrl-C.
    """
    try:
        with _interruptible():
            return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise JobError(f"training failed: {_reason(error)}; run the same command again to go on") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises `KeyboardInterrupt` after the block, although Ray Train handles it in its own way.

    Ray Train handles SIGINT itself: it stops the workers, then leaves by `SystemExit` with code 0 or by an error of its
    own, and its handler stays in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(error: Exception) -> str:
    """The last line of the first failed worker's error; the lines before it are the traceback."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    lines = str(failures[min(failures)]).strip().splitlines()
    return storage.one_line(lines[-1] if lines else type(error).__name__)


def _finish(output: str, result: ray.train.Result) -> int:
    """Write the best and the last model into the output. Raises `JobError` where the run stopped before its end."""
    outcome = result.return_value
    assert isinstance(outcome, RunOutcome)
    if outcome.broken is not None:
        raise JobError(f"{outcome.broken}; correct the image, or leave it out with --skip-broken")
    if outcome.stopped is not None:
        raise JobError(
            f"training stopped at step {outcome.step}: {outcome.stopped}; lower the learning rate, or look at these "
            "images; the same command goes on behind these steps"
        )
    scored = [(metrics.get("mask_ap", -1.0), metrics["step"], kept) for kept, metrics in result.best_checkpoints]
    best = max(scored, key=lambda entry: entry[:2])[2]
    for checkpoint, file_name in ((best, BEST_FILE), (result.checkpoint, LAST_FILE)):
        with checkpoint.as_directory() as folder:
            storage.put_atomic(f"{output}/{file_name}", Path(folder, MODEL_FILE).read_bytes())
    skipped = f", {outcome.skipped} of them skipped" if outcome.skipped else ""
    scored_line = f", best mask AP {outcome.best_mask_ap:.4f}" if outcome.best_mask_ap >= 0 else ""
    print(f"done: {outcome.step} steps{skipped}{scored_line}; {output}/{BEST_FILE}")
    return EXIT_OK


def _provenance(config: TrainConfig, settings: TrainingSettings, train: AnnotatedImages) -> dict[str, Any]:
    """What the checkpoint says about how it was made: plain values for its JSON header."""
    recipe = {part.name: getattr(settings, part.name) for part in fields(TrainingRecipe)}
    return {
        "data": os.path.basename(config.annotations),
        "images": len(train.images),
        "policy": None if config.policy is None else os.path.basename(config.policy),
        "init_weights": os.path.basename(config.init_weights),
        "recipe": recipe,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
    }


def _cpus_per_worker(workers: tuple[int, int]) -> int:
    return max(1, (os.cpu_count() or 1) // workers[1])


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same options with absolute local paths, also for file://: a worker has another working directory."""
    changes: dict[str, Any] = {}
    for name in ("annotations", "images", "policy", "val_annotations", "val_images", "output", "init_weights"):
        value = getattr(config, name)
        if value is None or value in (IMAGENET, RANDOM, *CONFIGS) or not storage.is_local(value):
            continue
        changes[name] = storage.split_uri(value)[1]
    return replace(config, **changes)
