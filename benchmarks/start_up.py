"""Times the start: `import yolact`, `yolact --help`, and `yolact label` until its first unit is committed.

    python -m benchmarks.start_up ../shared/data/coco/val --config yolact_resnet50 --weights W.pth

Starts each run as a user does, waits until its first unit is committed, and then sends SIGTERM. Each precision starts
once with an empty cache folder, which has a figure of its own, and then several times with a full one. The precisions
take turns.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import tyro

from benchmarks.harness import run_benchmark
from jobs.runtime.errors import JobError
from jobs.table.output import Output

_LOOK_EVERY_SECONDS = 0.02


@dataclass(frozen=True)
class StartUpBenchConfig:
    """Options of the measurement."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """images, as in yolact label; more than one unit (8 to 64 images) is needed"""
    config: str | None = None
    """as in yolact label"""
    weights: str | None = None
    """as in yolact label"""
    kinds: tuple[str, ...] = ("auto", "float32", "bfloat16/compiled", "int8")
    """what to start: a precision, with /engine for another engine than auto"""
    rounds: int = 3
    """warm starts of each precision"""
    time_limit: float = 600.0
    """seconds that one start may take"""


def seconds_of(command: list[str], times: int) -> float:
    """Median wall time of a command that ends by itself."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        spent.append(time.perf_counter() - start)
    return median(spent)


def first_unit(config: StartUpBenchConfig, kind: str, cache: str) -> float:
    """Seconds from starting `yolact label` to its first committed unit. Raises `JobError` where none comes."""
    precision, _, engine = kind.partition("/")
    command = [sys.executable, "-m", "jobs", "label", *config.inputs, "--precision", precision]
    command += ["--engine", engine or "auto", "--address", "local"]
    for flag, value in (("--config", config.config), ("--weights", config.weights)):
        command += [] if value is None else [flag, value]
    with tempfile.TemporaryDirectory(prefix="yolact-start-up-") as folder, tempfile.TemporaryFile("w+") as said:
        output = Output.at(folder)
        start = time.perf_counter()
        environment = os.environ | {"YOLACT_CACHE": cache}
        process = subprocess.Popen([*command, "--output", folder], env=environment, stdout=said, stderr=said)
        try:
            while not output.staged_units() and not output.published_parts():
                seconds = time.perf_counter() - start
                if process.poll() is not None or seconds > config.time_limit:
                    said.seek(0)
                    last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
                    raise JobError(f"{kind}: no label after {seconds:.0f} s: {last}")
                time.sleep(_LOOK_EVERY_SECONDS)
            return time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def main(config: StartUpBenchConfig) -> None:
    """Measure, print a line for each."""
    for name, arguments in (("import yolact", ["-c", "import yolact"]), ("yolact --help", ["-m", "jobs", "--help"])):
        print(f"{name}: {seconds_of([sys.executable, *arguments], 5):.2f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="yolact-cache-") as cache:
        cold = {kind: first_unit(config, kind, cache) for kind in config.kinds}
        warm = [{kind: first_unit(config, kind, cache) for kind in config.kinds} for _ in range(config.rounds)]
    for kind in config.kinds:
        spent = sorted(times[kind] for times in warm)
        print(
            f"{kind}: first unit after {median(spent):.1f} s ({spent[0]:.1f} to {spent[-1]:.1f}), "
            f"{cold[kind]:.1f} s with an empty cache"
        )


if __name__ == "__main__":
    run_benchmark(StartUpBenchConfig, __doc__, main)
