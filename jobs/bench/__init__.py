"""How fast this hardware labels your images, what limits it, and what a large run would take.

    yolact bench photos/ --config yolact_base --images 100000000 --devices 8 --price-per-hour 2.50

Labels a sample in the real pipeline, and measures its stages alone: the network, the post-processing, the decoding.
Every figure is the median of several rounds, which take turns, without warm-up. Nothing is kept but the figures.
"""

from __future__ import annotations

from jobs.bench.options import BenchConfig, check_options
from jobs.runtime.errors import EXIT_OK


def run(config: BenchConfig) -> int:
    """Measure and print the table; returns the exit code. Raises `UsageError` and `JobError`."""
    check_options(config)
    from jobs.bench.command import bench

    print(bench(config))
    return EXIT_OK
