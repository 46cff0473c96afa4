"""Options of `yolact bench`, and the checks of them that need nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro


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
