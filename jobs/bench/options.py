"""Options of `yolact bench`, and their checks. This file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.bench.bill import READS_PRICE, WRITES_PRICE
from jobs.runtime.options import (
    BatchSize,
    Device,
    Engine,
    ModelName,
    NumActors,
    Precision,
    ScoreThreshold,
    Weights,
    check_at_least,
    check_shares,
    parse_count_range,
)

#: fewer images are too few to measure a speed
_LEAST_SAMPLE = 8


@dataclass(frozen=True)
class BenchConfig:
    """Options of `yolact bench`; `run(BenchConfig(...))` does what the command does."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Your images, as in yolact label: folders or prefixes, tar shards, Parquet; any fsspec URI."""
    config: ModelName = None
    weights: Weights = None
    precision: Precision = "auto"
    engine: Engine = "auto"
    device: Device = "auto"
    batch_size: BatchSize = None
    num_actors: NumActors = None
    score_threshold: ScoreThreshold = 0.15
    sample: int = 128
    """Images to measure on: the first of the lake. More images make the rounds longer and the figures steadier."""
    rounds: int = 3
    """How often everything is measured."""
    plain_loop: bool = False
    """Also time the original release's way: float32, one image at a time, full-size masks, pycocotools."""
    images: int = 1_000_000
    """Estimate: images to label."""
    devices: int = 1
    """Estimate: GPUs, or machines like this one where the model runs on CPUs."""
    price_per_hour: float | None = None
    """Estimate: what one device costs an hour, in your currency."""
    price_per_1000_reads: float = READS_PRICE
    """Estimate: what 1,000 GET or HEAD requests to the store cost; by default S3 Standard's in us-east-1, in USD."""
    price_per_1000_writes: float = WRITES_PRICE
    """Estimate: what 1,000 PUT or LIST requests to the store cost; by default S3 Standard's in us-east-1, in USD."""
    output: str | None = None
    """JSON file for all figures; any fsspec URI."""
    address: str = "local"
    """Ray: local starts one for the measurement; or a cluster's address, whose nodes must share the disk for /tmp."""


def check_options(config: BenchConfig) -> None:
    """Raise `UsageError` for values that no measurement can have."""
    check_at_least(config, _LEAST_SAMPLE, "sample")
    check_at_least(config, 1, "rounds", "images", "devices", "batch_size")
    check_at_least(config, 0, "price_per_hour", "price_per_1000_reads", "price_per_1000_writes")
    check_shares(config, "score_threshold")
    if config.num_actors is not None:
        parse_count_range("--num-actors", config.num_actors)
