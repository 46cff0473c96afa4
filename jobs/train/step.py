"""One training step: losses, gradients and the update of the weights, the same on every worker.

It knows torch.distributed, but not Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.train.options import TrainingSettings
from jobs.train.state import TrainingState
from yolact.training.dataset import TrainingBatch
from yolact.training.losses import YolactWithLoss, mean_over_workers
from yolact.training.optimisation import freeze_batch_norm, learning_rate_at, set_learning_rate

#: a run stops after so many steps in a row whose losses or gradient were not finite
MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True)
class StepResult:
    """What one step did; the same on every worker."""

    losses: Mapping[str, float]
    """each loss of the whole batch"""
    learning_rate: float
    skipped: str | None
    """why the weights were not changed; None after an update"""


class TrainingStep:
    """Takes steps with one worker's shares of the batches. Call it on all workers at the same time.

    If the losses or the gradient of a step are not finite, the step changes no weights and is counted in the state, as
    in the release. All workers decide by the same numbers, so all of them skip the same steps.

    Args:
        state: the model, its optimiser and the counters; changed by every step.
        settings: of the run.
        device: of the model.
        dtype: of the network; losses are float32.
    """

    def __init__(
        self, state: TrainingState, settings: TrainingSettings, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.state, self.settings, self.device, self.dtype = state, settings, device, dtype
        self.num_workers = dist.get_world_size() if dist.is_initialized() else 1
        self.trainable = YolactWithLoss(state.model, mean_over_workers if self.num_workers > 1 else None)
        self.module: nn.Module = self.trainable
        if self.num_workers > 1:
            devices = [device.index] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(self.trainable, device_ids=devices)
        self.mean = torch.tensor(state.config.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(state.config.std, device=device).view(1, 3, 1, 1)

    def __call__(self, batch: TrainingBatch) -> StepResult:
        """Take one step with this worker's share of a batch."""
        learning_rate = self.learning_rate()
        set_learning_rate(self.state.optimizer, learning_rate)
        losses = self._forward(batch)
        values = self._over_workers(losses)
        culprits = [name for name, loss in losses.items() if not bool(loss.isfinite())]
        skipped = None
        if not all(map(torch.isfinite, torch.tensor(list(values.values())))):
            skipped = self._describe([f"the {name} loss" for name in culprits], batch)
        elif not self._backward(losses):
            skipped = self._describe(["the gradient"], batch)
        if skipped is None:
            self._update()
            self.state.skipped_in_a_row = 0
        else:
            self.state.skipped += 1
            self.state.skipped_in_a_row += 1
        self.state.step += 1
        return StepResult(values, learning_rate, skipped)

    def learning_rate(self) -> float:
        """The rate of the step that comes next."""
        settings = self.settings
        return learning_rate_at(
            self.state.step,
            peak=settings.peak_learning_rate,
            max_steps=settings.max_steps,
            warmup_steps=settings.warmup_steps,
            schedule=settings.schedule,
        )

    def _forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        self.trainable.train()
        if self.state.freezes_batch_norm:
            freeze_batch_norm(self.state.model)
        images = (batch.images.to(self.device, memory_format=torch.channels_last) - self.mean) / self.std
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses: dict[str, Tensor] = self.module(images, batch.targets)
        return losses

    def _backward(self, losses: Mapping[str, Tensor]) -> bool:
        """Put the clipped gradient in place; says whether it is finite.

        float16 is an exception: its scaler expects gradients that overflow, skips these updates by itself and lowers
        its scale.
        """
        scaler = self.state.scaler
        self.state.optimizer.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        scaler.unscale_(self.state.optimizer)
        parameters = [parameter for parameter in self.state.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.settings.clip_gradient:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_gradient, norm)
        return scaler.is_enabled() or bool(norm.isfinite())

    def _update(self) -> None:
        state = self.state
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model)

    def _over_workers(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """The losses of the whole batch. Each worker divides by means over all workers, so their mean is the loss."""
        values = torch.stack([loss.detach() for loss in losses.values()])
        if self.num_workers > 1:
            values = mean_over_workers(values)
        return dict(zip(losses, values.tolist(), strict=True))

    def _describe(self, culprits: list[str], batch: TrainingBatch) -> str:
        """What is not finite on any worker, with the image ids of its share of the batch."""
        own = [f"{culprit} with images {batch.image_ids}" for culprit in culprits]
        gathered: list[list[str]] = [own]
        if self.num_workers > 1:
            gathered = [[] for _ in range(self.num_workers)]
            dist.all_gather_object(gathered, own)
        return " and ".join(text for texts in gathered for text in texts) + " is not finite"
