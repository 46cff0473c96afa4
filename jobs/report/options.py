"""Options of `yolact report`, and the checks of them that need nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.runtime.logs import LogFormat


@dataclass(frozen=True)
class ReportConfig:
    """Options of `yolact report`; `run(ReportConfig(...))` does what the command does."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, a folder of label files, a glob, or one file; any fsspec URI."""
    output: str
    """The HTML file to write; any fsspec URI. An old one is replaced."""
    samples: int = 200
    """Pictures in the sample; 500 make a page of some 25 MB."""
    review: int = 40
    """Pictures in the review queue, the most worrying of the whole table."""
    seed: int = 0
    """Another seed draws another sample."""
    ground_truth: str | None = None
    """COCO JSON with true instances, matched by file name: adds AP, false positives and misses."""
    prototypes: int = 0
    """Pictures whose prototypes to show; needs --config or --weights, and runs that model on them here."""
    config: str | None = None
    """Model for --prototypes, as in yolact label."""
    weights: str | None = None
    """Weights for --prototypes, as in yolact label."""
    rows_per_task: int = 16_384
    """Rows of the table that one Ray task takes, about."""
    log_format: LogFormat = "text"
    """The log on stderr: text for people, or json lines with the run's id for a log collector."""
    address: str = "auto"
    """Ray cluster: auto (the one that is there, else a local one), local, or an address such as ray://head:10001."""
