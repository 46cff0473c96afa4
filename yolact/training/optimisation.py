"""How training updates the weights: optimiser, learning-rate schedule, batch-norm freezing, running average."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["step", "cosine"]

#: the release divides the learning rate by ten at 280k, 600k, 700k and 750k of 800k steps
STEP_MILESTONES = (0.35, 0.75, 0.875, 0.9375)
STEP_FACTOR = 0.1
#: the release freezes batch norm where fewer images than this fall on a device
MIN_IMAGES_FOR_BATCH_NORM = 6
#: share of the full learning rate at which the warm-up begins, and at which the cosine ends
WARMUP_START = 0.1
COSINE_END = 0.01


def build_optimizer(
    model: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """An optimiser over the parameters that learn. SGD decays all of them, AdamW only weights: no biases or gains.

    Both are PyTorch's fused kinds, which `skip_update_where` needs.

    Raises:
        ValueError: if the name is unknown.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "sgd":  # the release decays everything
        return torch.optim.SGD(learning, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        groups = [
            {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": weight_decay},
            {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(momentum, 0.999), fused=True)
    raise ValueError(f"optimiser {name!r} is unknown; choose sgd or adamw")


def learning_rate_at(
    step: int,
    *,
    peak: float,
    max_steps: int,
    warmup_steps: int,
    schedule: ScheduleName = "step",
    milestones: Sequence[float] = STEP_MILESTONES,
) -> float:
    """Learning rate of a step (0-based): a linear warm-up, then the schedule. A function of the step alone.

    Args:
        step: the step about to be taken.
        peak: full learning rate.
        max_steps: length of the run.
        warmup_steps: the rate rises from a tenth of the peak over so many steps.
        schedule: "step" divides by ten at each milestone, "cosine" falls to a hundredth of the peak.
        milestones: shares of `max_steps`.
    """
    if step < warmup_steps:
        return peak * (WARMUP_START + (1 - WARMUP_START) * step / warmup_steps)
    if schedule == "cosine":
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return peak * (COSINE_END + (1 - COSINE_END) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    passed = sum(step >= milestone * max_steps for milestone in milestones)
    return float(peak * STEP_FACTOR**passed)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def skip_update_where(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Let the next `optimizer.step()` change nothing if `skip`, a bool () on the device, is True. Does not wait for it.

    Fused optimisers have this for PyTorch's gradient scaler, which sets the same attribute.
    """
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]


def freeze_batch_norm(model: nn.Module) -> None:
    """Keep statistics, gains and biases of every batch norm as they are; call it again after each `model.train()`.

    With few images on a device, statistics of the batch are worse than those of ImageNet.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)


class WeightAverage:
    """Exponential moving average of a model's weights: the weights that are validated and saved.

    Args:
        model: the average starts from its current weights and follows them. The model must keep its tensors: loading a
            state into them is fine, moving the model to another device is not.
        decay: share of the average that stays at each step, once the run is long enough.

    Raises:
        ValueError: if the decay is not between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of a weight average must lie between 0 and 1, not {decay}")
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged, self._copied = _split(self.model)
        self._followed, self._counters = _split(model)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step. In the first steps the average follows faster, so that it forgets the
        initial weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averaged, self._followed, 1 - decay)
        if self._copied:
            torch._foreach_copy_(self._copied, self._counters)


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of a model that can be averaged, and its integer counters, which cannot."""
    tensors = list(model.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
