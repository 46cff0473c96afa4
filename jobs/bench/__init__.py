"""Measure how fast this hardware labels your images, what limits the speed, and how long a large run would take.

    yolact bench photos/ --config yolact_base --images 100000000 --devices 8 --price-per-hour 2.50

Labels a sample in the real pipeline, and measures each stage alone: network, post-processing, decoding. Every figure is
the median of several rounds; the warm-up does not count. The labels are deleted, only the figures stay.
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
