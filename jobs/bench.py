"""How fast this hardware labels your images, what limits it, and what a large run would take.

    yolact bench photos/ --config yolact_base --images 100000000 --devices 8 --price-per-hour 2.50

Labels a sample in the real pipeline, and measures its stages alone: the network, the post-processing, the decoding.
Every figure is the median of several rounds, which take turns, without warm-up. Nothing is kept but the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs.errors import EXIT_OK, UsageError


@dataclass(frozen=True)
class BenchConfig:
    """Options of `yolact bench`; `run(BenchConfig(...))` does what the command does."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Your images, as in yolact label: folders or prefixes, tar shards, Parquet; any fsspec URI."""
    config: str | None = None
    """Name of the model, as in yolact label."""
    weights: str | None = None
    """Official .pth or own checkpoint, as in yolact label."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Arithmetic of the network, as in yolact label."""
    engine: Literal["auto", "eager", "compiled", "openvino"] = "auto"
    """What runs the network, as in yolact label."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs, as in yolact label."""
    batch_size: int | None = None
    """Images the model takes at once, as in yolact label."""
    num_actors: int | None = None
    """Copies of the model; fitted to the cluster if not given."""
    score_threshold: float = 0.15
    """Instances scoring no more than this are left out (0 to 1)."""
    sample: int = 128
    """Images to measure on, the first of the lake; more make the rounds longer and the figures steadier."""
    rounds: int = 3
    """How often everything is measured."""
    plain_loop: bool = False
    """Also time what the original release does: float32, one image at a time, full-size masks, pycocotools."""
    images: int = 1_000_000
    """Estimate: images to label."""
    devices: int = 1
    """Estimate: GPUs, or machines like this one where the model runs on CPUs."""
    price_per_hour: float | None = None
    """Estimate: what one device costs an hour, in your currency."""
    output: str | None = None
    """JSON file for all figures; any fsspec URI."""
    address: str = "local"
    """Ray: local starts one for the measurement; or a cluster's address, whose nodes must share the disk for /tmp."""


def run(config: BenchConfig) -> int:
    """Measure and print the table; returns the exit code. Raises `UsageError` and `JobError`."""
    for name in ("sample", "rounds", "images", "devices"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name} {getattr(config, name)}: must be at least 1")
    if config.sample < 8:
        raise UsageError(f"--sample {config.sample}: 8 images are the least that tell anything")
    if config.num_actors is not None and config.num_actors < 1:
        raise UsageError(f"--num-actors {config.num_actors}: must be at least 1")
    if config.price_per_hour is not None and config.price_per_hour < 0:
        raise UsageError(f"--price-per-hour {config.price_per_hour}: must be 0 or more")
    from jobs.benchmarks.label_speed import bench

    print(bench(config))
    return EXIT_OK
