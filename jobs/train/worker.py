"""What one training worker does: the function that Ray Train runs in each of its processes."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from jobs.runtime.metrics import JobMetrics
from jobs.train.broken_images import BrokenImageError, message_of
from jobs.train.data import ImageSet, TrainingImages
from jobs.train.lines import LineQueueHandle
from jobs.train.loader import build_loader, window_config
from jobs.train.log import TrainingLog
from jobs.train.options import Precision, TrainingSettings
from jobs.train.state import SavedState, TrainingState, read_state
from jobs.train.step import MAX_SKIPPED_IN_A_ROW, StepResult, TrainingStep
from jobs.train.validation import score_table, validate
from yolact.config import YolactConfig
from yolact.inference.precision import DTYPES, has_fast_bfloat16
from yolact.network.model import Yolact, build_yolact
from yolact.training.dataset import TrainingBatch
from yolact.training.optimisation import (
    MIN_IMAGES_FOR_BATCH_NORM,
    WeightAverage,
    build_optimizer,
    freeze_batch_norm,
)
from yolact.weights.initial import initialise

log = logging.getLogger(__name__)

#: the first steps of a run are all recorded, also with a larger `log_every`
FIRST_STEPS_RECORDED = 20


@dataclass(frozen=True)
class RunPlan:
    """Everything that a worker needs to know; sent to the worker by pickle."""

    settings: TrainingSettings
    model_config: YolactConfig
    train: TrainingImages
    validation: ImageSet | None
    output: str
    provenance: Mapping[str, Any]
    """what the checkpoint says about how it was made; plain values for JSON"""
    threads_per_worker: int
    metrics: JobMetrics
    lines: LineQueueHandle | None = None
    """takes lines for the driver's terminal"""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    step: int
    """steps done"""
    skipped: int
    """steps that changed no weights, because something was not finite"""
    best_mask_ap: float
    """-1 without validation"""
    stopped: str | None = None
    """why the run stopped before its end: step after step was not finite"""
    broken: str | None = None
    """the broken image that ended the run; another attempt cannot help"""


def train_worker(config: dict[str, RunPlan]) -> RunOutcome:
    """What Ray Train calls with {"plan": …}: train until the last step.

    A broken image is an outcome, not an error: Ray Train would start the workers again after an error.
    """
    worker = Worker(config["plan"])
    try:
        return worker.run()
    except BrokenImageError as error:
        return RunOutcome(worker.state.step, worker.state.skipped, worker.state.best_mask_ap, broken=message_of(error))


class Worker:
    """One process of a run."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.settings, self.metrics = plan.settings, plan.metrics
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device() if self.settings.use_gpu else torch.device("cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(plan.threads_per_worker)
        self.dtype = training_dtype(self.settings.precision, self.device)
        self.state = self._initial_state()
        self.take_step = TrainingStep(self.state, self.settings, self.device, self.dtype)
        self.log = None
        log.info("worker %d of %d on %s, from step %d", self.rank, self.num_workers, self.device, self.state.step)
        if self.rank == 0:
            self.log = TrainingLog(plan.output, self.state.step, self.settings.max_steps, self.print_line)

    def print_line(self, line: str) -> None:
        """Print a line on the driver's terminal."""
        if self.plan.lines is not None:
            self.plan.lines.put.remote(line)

    def run(self) -> RunOutcome:
        """Step after step, with validations and checkpoints in between."""
        settings, state = self.settings, self.state
        loader = build_loader(
            self.plan.train,
            settings,
            self.plan.model_config,
            first_step=state.step,
            worker=self.rank,
            num_workers=self.num_workers,
        )
        images, stopped = 0, None
        for batch in self.metrics.waits("load", self._batches(loader)):
            is_last = state.step + 1 == settings.last_step
            validates = self.plan.validation is not None and (
                (state.step + 1) % settings.validate_every == 0 or is_last
            )
            saves = validates or (state.step + 1) % settings.checkpoint_every == 0 or is_last
            with self.metrics.timed("step"):
                results = self.take_step(batch)
                if saves or state.step <= FIRST_STEPS_RECORDED:
                    results += self.take_step.read()
            self.metrics.images(len(batch.image_ids))
            images += settings.batch_size
            if self._record(results, images):
                images = 0
            if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
                # the checkpoint lies behind these steps: a run that goes on does not meet the same images again
                self._checkpoint({})
                reason = results[-1].skipped
                stopped = f"{MAX_SKIPPED_IN_A_ROW} steps in a row were skipped, the last one because {reason}"
                break
            if saves:
                self._checkpoint(self._validate() if validates else {})
                images = 0
                if self.log is not None:
                    self.log.restart_clock(state.step)
        if self.log is not None:
            self.log.close()
        return RunOutcome(state.step, state.skipped, state.best_mask_ap, stopped)

    def _batches(self, loader: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
        """The batches of a loader.

        Raises:
            BrokenImageError: on all workers at the same step, if an image of any of them is broken and may not be left
                out. A worker that stopped alone would leave the others waiting for its gradients.
        """
        batches = iter(loader)
        while True:
            batch, broken = None, None
            try:
                batch = next(batches, None)
            except BrokenImageError as error:
                broken = message_of(error)
            broken = self._first_of_workers(broken)
            if broken is not None:
                raise BrokenImageError(broken)
            if batch is None:
                return
            yield batch

    def _first_of_workers(self, message: str | None) -> str | None:
        """The first message of any worker; a collective call."""
        if self.num_workers == 1:
            return message
        count = torch.tensor(float(message is not None), device=self.device)
        dist.all_reduce(count)
        if count == 0:
            return None
        messages: list[str | None] = [None] * self.num_workers
        dist.all_gather_object(messages, message)
        return next(text for text in messages if text is not None)

    def _record(self, results: Sequence[StepResult], images: int) -> bool:
        """Record steps where it is time to; says whether `images` (since the last line) stand in a line now."""
        if self.log is None:
            return False
        told = False
        skipped = self.state.skipped - sum(result.skipped is not None for result in results)
        for result in results:
            if result.skipped is not None:
                skipped += 1
                self.log.skipped(result.step, result.skipped, skipped)
            elif self._is_due(result.step):
                self.log.step(result.step, result.losses, result.learning_rate, 0 if told else images)
                self.metrics.losses(dict(result.losses))
                self.metrics.gpu_memory()
                told = True
        return told

    def _is_due(self, step: int) -> bool:
        """Whether the losses of a step are recorded."""
        return step % self.settings.log_every == 0 or step <= FIRST_STEPS_RECORDED or step == self.settings.last_step

    def _initial_state(self) -> TrainingState:
        """The state of the latest checkpoint, or that of a new run."""
        saved = self._saved_state()
        freezes = self._decide_batch_norm() if saved is None else saved["freezes_batch_norm"]
        state = self._new_state(freezes)
        if saved is not None:
            state.restore(saved)
            self._print_once(f"going on from step {state.step} with {self.num_workers} workers")
        return state

    def _saved_state(self) -> SavedState | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return read_state(Path(folder))

    def _decide_batch_norm(self) -> bool:
        """Whether a new run keeps batch norm frozen."""
        if self.settings.freeze_batch_norm is not None:
            return self.settings.freeze_batch_norm
        if self.device.type == "cpu" and self.num_workers > 1:  # PyTorch synchronises batch norm on GPUs only
            return True
        return self.settings.batch_size // self.num_workers < MIN_IMAGES_FOR_BATCH_NORM

    def _new_state(self, freezes_batch_norm: bool) -> TrainingState:
        settings = self.settings
        torch.manual_seed(settings.seed)
        model = build_yolact(window_config(self.plan.model_config, settings))
        taken = initialise(model, settings.init_weights)
        self._print_once(f"initial weights from {taken.summary()}")
        batch_norm = "frozen" if freezes_batch_norm else "trained"
        self._print_once(f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}, batch norm {batch_norm}")
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if freezes_batch_norm:
            freeze_batch_norm(model)
        elif self.num_workers > 1:
            model = _with_shared_batch_norm(model, self.device)
        return TrainingState(
            self.plan.model_config,
            model,
            build_optimizer(model, settings.optimizer, settings.peak_learning_rate, settings.weight_decay),
            torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16),
            WeightAverage(model, settings.ema_decay) if settings.ema_decay else None,
            freezes_batch_norm,
        )

    def _print_once(self, line: str) -> None:
        """Print a line on the driver's terminal, from the first worker only."""
        if self.rank == 0:
            self.print_line(line)

    def _validate(self) -> dict[str, float]:
        """Scores of the model as it is, on the first worker; empty on the others."""
        assert self.plan.validation is not None
        start = time.perf_counter()
        model = self.state.validated_model()
        with self.metrics.timed("validation"):
            results = validate(
                model, self.plan.validation, str(self.device), self.rank, self.num_workers, self._report_validation
            )
        if results is None or self.log is None:
            return {}
        scores = score_table(results)
        self.log.validation(self.state.step, scores, time.perf_counter() - start)
        self.state.best_mask_ap = max(self.state.best_mask_ap, scores["mask_ap"])
        return scores

    def _report_validation(self, done: int) -> None:
        """Show the progress of a validation, as if all workers were as far as this one."""
        if self.log is not None and self.plan.validation is not None:
            total = len(self.plan.validation.data.images)
            self.log.validation_progress(min(total, done * self.num_workers), total)

    def _checkpoint(self, scores: dict[str, float]) -> None:
        """Save a checkpoint: all workers wait for each other here, and the first one's files are kept."""
        metrics = {"mask_ap": -1.0, **scores, "step": self.state.step}
        if self.rank:
            ray.train.report(metrics)
            return
        assert self.log is not None
        self.log.flush()
        with tempfile.TemporaryDirectory(prefix="yolact-checkpoint-") as folder:
            provenance = {**self.plan.provenance, "validation": scores}
            self.state.save(Path(folder), self.settings, provenance)
            with self.metrics.timed("checkpoint"):
                ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _with_shared_batch_norm(model: Yolact, device: torch.device) -> Yolact:
    """The model with batch norm over all workers. Raises `ValueError` on a CPU, where PyTorch has none."""
    if device.type == "cpu":
        raise ValueError(
            "only GPU workers can share batch norm: go on with one worker, or start anew with --freeze-batch-norm True"
        )
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted, Yolact)
    return converted


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What the network computes in; see `Precision` for "auto"."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(str(device)) else torch.float32
    return DTYPES[precision]
