"""Options of `yolact report`, and their checks. This file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.runtime.errors import UsageError
from jobs.runtime.options import Address, LogFormatOption, PolicyUri, RowsPerTask, check_at_least

#: the most images on one page
_MOST_IMAGES = 5000


@dataclass(frozen=True)
class ReportConfig:
    """Options of `yolact report`; `run(ReportConfig(...))` does what the command does."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, a folder of label files, a glob, or one file; any fsspec URI."""
    output: str
    """The HTML file to write; any fsspec URI. An old one is replaced."""
    samples: int = 200
    """Images in the sample; 500 make a page of about 25 MB."""
    review: int = 40
    """Images in the review queue: the most worrying of the whole table."""
    seed: int = 0
    """Another seed draws another sample."""
    policy: PolicyUri = None
    ground_truth: str | None = None
    """COCO JSON with true instances, matched by file name: adds AP, false positives and misses."""
    prototypes: int = 0
    """Images to show with their prototypes; needs --config or --weights, and runs that model on this machine."""
    config: str | None = None
    """Model for --prototypes, as in yolact label."""
    weights: str | None = None
    """Weights for --prototypes, as in yolact label."""
    rows_per_task: RowsPerTask = 16_384
    log_format: LogFormatOption = "text"
    address: Address = "auto"


def check_options(config: ReportConfig) -> None:
    """Raise `UsageError` for values that no report can have."""
    check_at_least(config, 0, "samples", "review", "prototypes")
    check_at_least(config, 1, "rows_per_task")
    if config.samples + config.review > _MOST_IMAGES:
        raise UsageError(
            f"--samples {config.samples} --review {config.review}: a page holds {_MOST_IMAGES:,} images at most"
        )
    if config.prototypes and config.config is None and config.weights is None:
        raise UsageError(f"--prototypes {config.prototypes}: name the model with --config or --weights")
