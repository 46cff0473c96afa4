"""What one training worker does: the function that Ray Train runs in each of its processes."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.runtime.metrics import JobMetrics
from jobs.train.data import ImageSet, build_loader, window_config
from jobs.train.log import TrainingLog
from jobs.train.options import Precision
from jobs.train.state import TrainingState
from jobs.train.validation import score_table, validate
from yolact.config import YolactConfig
from yolact.inference.precision import DTYPES, has_fast_bfloat16
from yolact.network.model import Yolact, build_yolact
from yolact.training.dataset import TrainingBatch
from yolact.training.losses import YolactWithLoss
from yolact.training.optimisation import (
    WeightAverage,
    build_optimizer,
    freeze_batch_norm,
    learning_rate_at,
    set_learning_rate,
)
from yolact.weights.initial import initialise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlan:
    """Everything a worker is told; travels to it by pickle."""

    settings: dict[str, Any]
    """the flags of `yolact train` with the recipe's values filled in"""
    model_config: YolactConfig
    train: ImageSet
    validation: ImageSet | None
    output: str
    provenance: dict[str, Any]
    threads_per_worker: int
    metrics: JobMetrics
    board: Any = None
    """actor handle that shows lines on the driver's terminal"""


class NonFiniteLossError(Exception):
    """A loss became NaN or infinite; the message names it, the step and the images."""


def train_worker(config: dict[str, RunPlan]) -> dict[str, Any]:
    """What Ray Train calls with {"plan": …}: train until `max_steps`; returns what the driver wants to know.

    Returns:
        `step` reached, `best_mask_ap`, and `stopped`: why the run must not go on, or None.
    """
    worker = Worker(config["plan"])
    try:
        worker.run()
    except NonFiniteLossError as error:
        return {"step": worker.state.step, "best_mask_ap": worker.state.best_mask_ap, "stopped": str(error)}
    return {"step": worker.state.step, "best_mask_ap": worker.state.best_mask_ap, "stopped": None}


class Worker:
    """One process of a run."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.settings, self.metrics = plan.settings, plan.metrics
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device() if self.settings["use_gpu"] else torch.device("cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(plan.threads_per_worker)
        self.dtype = training_dtype(self.settings["precision"], self.device)
        self.state = self._fresh_state()
        self._resume()
        self.trainable = YolactWithLoss(
            self.state.model,
            self.settings["max_masks_per_image"],
            average_over_workers if dist.is_initialized() else None,
        )
        self.module: nn.Module = self.trainable
        if dist.is_initialized() and self.num_workers > 1:
            devices = [self.device.index] if self.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(self.trainable, device_ids=devices)
        config = plan.model_config
        self.mean = torch.tensor(config.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config.std, device=self.device).view(1, 3, 1, 1)
        self.last_step = min(self.settings["max_steps"], self.settings["stop_after"] or self.settings["max_steps"])
        self.log = None
        log.info("worker %d of %d on %s, from step %d", self.rank, self.num_workers, self.device, self.state.step)
        if self.rank == 0:
            self.log = TrainingLog(plan.output, self.state.step, self.settings["max_steps"], self.show)

    def show(self, line: str) -> None:
        """A line for whoever started the run."""
        if self.plan.board is not None:
            self.plan.board.show.remote(line)

    def run(self) -> None:
        """Step after step, with validations and checkpoints in between."""
        settings = self.settings
        loader = build_loader(
            self.plan.train,
            settings,
            config=self.plan.model_config,
            first_step=self.state.step,
            last_step=self.last_step,
            worker=self.rank,
            num_workers=self.num_workers,
        )
        images = 0
        for batch in self.metrics.waits("load", loader):
            with self.metrics.timed("step"):
                losses, learning_rate = self.train_step(batch)
            self.metrics.images(len(batch.targets))
            images += settings["batch_size"]
            step = self.state.step
            if self.log is not None and (step % settings["log_every"] == 0 or step <= 20 or step == self.last_step):
                self.log.step(step, losses, learning_rate, images)
                self.metrics.losses(losses)
                self.metrics.gpu_memory()
                images = 0
            is_last = step == self.last_step
            validates = self.plan.validation is not None and (step % settings["validate_every"] == 0 or is_last)
            if validates or step % settings["checkpoint_every"] == 0 or is_last:
                self._checkpoint(self._validate() if validates else {})
                images = 0
                if self.log is not None:
                    self.log.restart_clock(step)
        if self.log is not None:
            self.log.close()

    def train_step(self, batch: TrainingBatch) -> tuple[dict[str, float], float]:
        """One update of the weights; returns its losses (means over workers) and learning rate."""
        state, settings = self.state, self.settings
        learning_rate = self.learning_rate()
        set_learning_rate(state.optimizer, learning_rate)
        self.trainable.train()
        if settings["freeze_batch_norm"]:
            freeze_batch_norm(state.model)
        images = (batch.images.to(self.device, memory_format=torch.channels_last) - self.mean) / self.std
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.module(images, batch.targets)
        values = self._shared(losses)
        self._check_finite(losses, values, batch)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        if settings["clip_gradient"]:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), settings["clip_gradient"])
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model)
        state.step += 1
        return values, learning_rate

    def learning_rate(self) -> float:
        """Of the step about to be taken."""
        settings = self.settings
        return learning_rate_at(
            self.state.step,
            peak=settings["peak_learning_rate"],
            max_steps=settings["max_steps"],
            warmup_steps=settings["warmup_steps"],
            schedule=settings["schedule"],
        )

    def _fresh_state(self) -> TrainingState:
        settings = self.settings
        torch.manual_seed(settings["seed"])
        model = build_yolact(window_config(self.plan.model_config, settings))
        taken = initialise(model, settings["init_weights"])
        if self.rank == 0:
            self.show(f"initial weights from {taken.summary()}")
            self.show(f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}")
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if settings["freeze_batch_norm"]:
            freeze_batch_norm(model)
        elif self.num_workers > 1:
            if self.device.type == "cpu":
                raise ValueError("only GPU workers can share batch norm; use --freeze-batch-norm True")
            converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            assert isinstance(converted, Yolact)
            model = converted
        return TrainingState(
            self.plan.model_config,
            model,
            build_optimizer(model, settings["optimizer"], settings["peak_learning_rate"], settings["weight_decay"]),
            torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16),
            WeightAverage(model, settings["ema_decay"]) if settings["ema_decay"] else None,
        )

    def _resume(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            self.state.load(Path(folder))
        if self.rank == 0:
            self.show(f"going on from step {self.state.step} with {self.num_workers} workers")

    def _shared(self, losses: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack([loss.detach() for loss in losses.values()])
        if dist.is_initialized():
            dist.all_reduce(values)
            values /= self.num_workers
        return dict(zip(losses, values.tolist(), strict=True))

    def _check_finite(self, losses: dict[str, Tensor], values: dict[str, float], batch: TrainingBatch) -> None:
        """Every worker sees the same means, so all of them stop at the same step."""
        if all(map(torch.isfinite, torch.tensor(list(values.values())))):
            return
        own = [(name, batch.image_ids) for name, loss in losses.items() if not bool(loss.isfinite())]
        gathered: list[list[tuple[str, list[Any]]]] = [own]
        if dist.is_initialized():
            gathered = [[] for _ in range(self.num_workers)]
            dist.all_gather_object(gathered, own)
        named = [f"the {name} loss with images {ids}" for found in gathered for name, ids in found]
        raise NonFiniteLossError(
            f"step {self.state.step + 1}: {' and '.join(named)} is not finite; "
            "lower the learning rate, or look at these images"
        )

    def _validate(self) -> dict[str, float]:
        assert self.plan.validation is not None
        start = time.perf_counter()
        model = self.state.validated_model()
        with self.metrics.timed("validation"):
            results = validate(model, self.plan.validation, str(self.device), self.rank, self.num_workers)
        if results is None or self.log is None:
            return {}
        scores = score_table(results)
        self.log.validation(self.state.step, scores, time.perf_counter() - start)
        self.state.best_mask_ap = max(self.state.best_mask_ap, scores["mask_ap"])
        return scores

    def _checkpoint(self, scores: dict[str, float]) -> None:
        """A barrier over all workers; the first one's files are what is kept."""
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


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What the network computes in; see `Precision` for "auto"."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(str(device)) else torch.float32
    return DTYPES[precision]


def average_over_workers(count: Tensor) -> Tensor:
    """Mean of a number over workers: see `YolactWithLoss.average_count`."""
    dist.all_reduce(count)
    return count / dist.get_world_size()
