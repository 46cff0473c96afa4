"""One training step: losses, gradients and the update of the weights, the same on every worker.

It knows torch.distributed, but not Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.train.options import TrainingSettings
from jobs.train.state import TrainingState
from yolact.training.colours import change_colours
from yolact.training.dataset import TrainingBatch
from yolact.training.losses import YolactWithLoss, mean_over_workers
from yolact.training.optimisation import (
    freeze_batch_norm,
    learning_rate_at,
    set_learning_rate,
    skip_update_where,
)

#: a run stops after so many steps in a row whose losses or gradient were not finite
MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True)
class StepResult:
    """What one step did; the same on every worker."""

    step: int
    """steps done, this one included"""
    losses: Mapping[str, float]
    """each loss of the whole batch"""
    learning_rate: float
    skipped: str | None
    """why the weights were not changed; None after an update"""


@dataclass(frozen=True)
class _UnreadStep:
    """A step whose numbers are still on the device."""

    step: int
    learning_rate: float
    image_ids: list[int | str]
    """of this worker"""
    own: Tensor
    """(L,) the losses of this worker"""
    whole: Tensor
    """(L,) the losses of the whole batch"""
    updated: Tensor
    """() bool, the same on all workers"""


class TrainingStep:
    """Takes steps with one worker's shares of the batches. Call it on all workers at the same time.

    If the losses or the gradient of a step are not finite, the step changes no weights and is counted in the state, as
    in the release. The device decides that by itself. All workers decide by the same numbers, so all of them skip the
    same steps.

    Reading a number from a GPU waits until the GPU has done everything before it. So results are read `read_every`
    steps at a time, and the steps in between wait for nothing.

    Args:
        state: the model, its optimiser and the counters; changed by every step.
        settings: of the run.
        device: of the model.
        dtype: of the network; losses are float32.
        read_every: steps whose results are read together; None reads every step on a CPU, where reading costs nothing,
            and as often as steps are logged on a GPU.
    """

    def __init__(
        self,
        state: TrainingState,
        settings: TrainingSettings,
        device: torch.device,
        dtype: torch.dtype,
        read_every: int | None = None,
    ) -> None:
        self.state, self.settings, self.device, self.dtype = state, settings, device, dtype
        self.read_every = read_every or (1 if device.type == "cpu" else settings.log_every)
        self.num_workers = dist.get_world_size() if dist.is_initialized() else 1
        self.trainable = YolactWithLoss(state.model, mean_over_workers if self.num_workers > 1 else None)
        self.module: nn.Module = self.trainable
        if self.num_workers > 1:
            devices = [device.index] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(
                self.trainable,
                device_ids=devices,
                # statistics that do not change need not be sent again in every step
                broadcast_buffers=not state.freezes_batch_norm,
            )
        self.mean = torch.tensor(state.config.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(state.config.std, device=device).view(1, 3, 1, 1)
        self._unread: list[_UnreadStep] = []
        self._loss_names: list[str] = []

    def __call__(self, batch: TrainingBatch) -> list[StepResult]:
        """Take one step with this worker's share of a batch.

        Returns:
            The results that are read now: of the last `read_every` steps, or none.
        """
        learning_rate = self.learning_rate()
        set_learning_rate(self.state.optimizer, learning_rate)
        losses = self._forward(batch)
        self._loss_names = list(losses)
        own = torch.stack([loss.detach() for loss in losses.values()])
        # each worker divides by means over all workers, so the mean of their losses is the loss of the whole batch
        whole = mean_over_workers(own) if self.num_workers > 1 else own
        norm = self._backward(losses)
        updated = whole.isfinite().all()
        if not self.state.scaler.is_enabled():
            updated = updated & norm.isfinite()
        self._update(updated)
        self.state.step += 1
        self._unread.append(_UnreadStep(self.state.step, learning_rate, batch.image_ids, own, whole, updated))
        return self.read() if self.state.step % self.read_every == 0 else []

    def read(self) -> list[StepResult]:
        """Read the results of the steps since the last reading, and count the skipped ones; waits for the device."""
        unread, self._unread = self._unread, []
        if not unread:
            return []
        numbers = torch.stack([torch.cat([one.own, one.whole, one.updated.float()[None]]) for one in unread]).tolist()
        return [self._result(one, row) for one, row in zip(unread, numbers, strict=True)]

    def learning_rate(self) -> float:
        """The rate of the step that comes next."""
        settings = self.settings
        return learning_rate_at(
            self.state.step,
            peak=settings.peak_learning_rate,
            max_steps=settings.max_steps,
            warmup_steps=settings.warmup_steps,
            schedule=settings.schedule,
            milestones=settings.milestones,
        )

    def _forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        self.trainable.train()
        if self.state.freezes_batch_norm:
            freeze_batch_norm(self.state.model)
        images = batch.images.to(self.device, non_blocking=True)
        if batch.colours is not None:
            images = change_colours(images, batch.colours.to(self.device, non_blocking=True))
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses: dict[str, Tensor] = self.module(images, batch.targets.to(self.device))
        return losses

    def _backward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Put the clipped gradient in place; gives its norm before clipping."""
        scaler = self.state.scaler
        self.state.optimizer.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        scaler.unscale_(self.state.optimizer)
        parameters = [parameter for parameter in self.state.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.settings.clip_gradient:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_gradient, norm)
        return norm

    def _update(self, updated: Tensor) -> None:
        """Change the weights, unless `updated` is False on the device.

        float16 is an exception: its scaler expects gradients that overflow, skips these updates by itself and lowers
        its scale. A loss that is not finite makes such a gradient too.
        """
        state = self.state
        if state.scaler.is_enabled():
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            skip_update_where(state.optimizer, ~updated)
            state.optimizer.step()
        if state.average is not None:
            state.average.update()

    def _result(self, one: _UnreadStep, numbers: list[float]) -> StepResult:
        """The result of a step from its numbers: the worker's losses, those of the batch, and whether it updated."""
        count = len(self._loss_names)
        own, whole, updated = numbers[:count], numbers[count:-1], bool(numbers[-1])
        skipped = None
        if updated:
            self.state.skipped_in_a_row = 0
        else:
            self.state.skipped += 1
            self.state.skipped_in_a_row += 1
            culprits = [
                f"the {name} loss"
                for name, value in zip(self._loss_names, own, strict=True)
                if not math.isfinite(value)
            ]
            if all(map(math.isfinite, whole)):
                culprits = ["the gradient"]
            skipped = self._describe(culprits, one.image_ids)
        losses = dict(zip(self._loss_names, whole, strict=True))
        return StepResult(one.step, losses, one.learning_rate, skipped)

    def _describe(self, culprits: list[str], image_ids: list[int | str]) -> str:
        """What is not finite on any worker, with the image ids of its share of the batch."""
        own = [f"{culprit} with images {image_ids}" for culprit in culprits]
        gathered: list[list[str]] = [own]
        if self.num_workers > 1:
            gathered = [[] for _ in range(self.num_workers)]
            dist.all_gather_object(gathered, own)
        return " and ".join(text for texts in gathered for text in texts) + " is not finite"
