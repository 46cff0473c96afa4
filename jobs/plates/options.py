"""The options of `yolact plates`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.runtime.errors import UsageError


@dataclass(frozen=True)
class PlatesConfig:
    """Options of `yolact plates`."""

    output: str
    """folder or URI to write to (any fsspec scheme)"""
    num_plates: int = 100
    """how many plates"""
    height: int = 512
    """height of a plate in pixels"""
    width: int = 512
    """width of a plate in pixels"""
    density: float = 60.0
    """mean number of nuclei per 512 × 512 px"""
    mean_diameter: float = 26.0
    """mean diameter of a nucleus in pixels"""
    seed: int = 0
    """of the lake: another seed draws other plates"""
    layout: Literal["images", "tar"] = "images"
    """single PNG files, or WebDataset tar shards"""
    plates_per_shard: int = 256
    """plates in one tar shard"""


def check_options(config: PlatesConfig) -> None:
    """Raises UsageError for a count or a size below 1."""
    for name in ("num_plates", "height", "width", "plates_per_shard"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)} must be at least 1")
