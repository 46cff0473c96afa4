"""Options of `yolact report`, and the checks of them that need nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.runtime.errors import UsageError
from jobs.runtime.options import Address, LogFormatOption, RowsPerTask, check_at_least

#: images of one page
_MOST_PICTURES = 5000


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
    rows_per_task: RowsPerTask = 16_384
    log_format: LogFormatOption = "text"
    address: Address = "auto"


def check_options(config: ReportConfig) -> None:
    """Raise `UsageError` for values that no report can have."""
    check_at_least(config, 0, "samples", "review", "prototypes")
    check_at_least(config, 1, "rows_per_task")
    if config.samples + config.review > _MOST_PICTURES:
        raise UsageError(
            f"--samples {config.samples} --review {config.review}: a page holds {_MOST_PICTURES:,} images at most"
        )
