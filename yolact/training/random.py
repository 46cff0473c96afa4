"""Random choices of the augmentation, from torch's global generator. The caller seeds it for each sample."""

from __future__ import annotations

import torch


def uniform(low: float, high: float) -> float:
    """A number between two bounds."""
    return low + (high - low) * torch.rand(()).item()


def coin() -> bool:
    """True with probability ½."""
    return torch.rand(()).item() < 0.5
