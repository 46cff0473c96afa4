"""How fast this hardware labels your images, what limits it, and what a large run would take.

    yolact bench photos/ --config yolact_base --images 100000000 --devices 8 --price-per-hour 2.50

Labels a sample in the real pipeline, and measures its stages alone: the network, the post-processing, the decoding.
Every figure is the median of several rounds, which take turns, without warm-up. Nothing is kept but the figures.
"""

from __future__ import annotations

from jobs.bench.options import BenchConfig
from jobs.runtime.errors import EXIT_OK, UsageError


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
    from jobs.bench.command import bench

    print(bench(config))
    return EXIT_OK
