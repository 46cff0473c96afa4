"""Measures how the label job scales: time, memory and files for 1,000, 10,000 and 100,000 images, without a real model.

    python -m benchmarks.scale.run --output scale/

For each size it draws a lake of small images in tar shards. It labels the lake with a stand-in that returns fixed
detections, in a process and a Ray of its own. Writes scale.json, scale.md and memory.svg (of the largest run). Takes
three minutes on two quiet cores. Needs psutil, which the `dev` extra brings.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness import run_benchmark
from benchmarks.scale.figures import RunFigures, make_figures, markdown_table, memory_plot
from benchmarks.scale.plain_loop import run_plain_loop
from benchmarks.scale.stand_in import save_stand_in_checkpoint, write_lake
from benchmarks.scale.watch import Watched, watch
from jobs.table.output import Output

_INPUT_SIZE = 96


@dataclass(frozen=True)
class ScaleConfig:
    """Options of the measurement."""

    output: Path
    """folder for the results"""
    images: tuple[int, ...] = (1_000, 10_000, 100_000)
    """sizes of the lakes"""
    plain_images: int = 2_000
    """images of the plain loop beside each run"""
    timeout_seconds: float = 3_600.0
    """seconds that one run may take"""


def measure_run(images: int, folder: Path, config: ScaleConfig) -> tuple[RunFigures, Watched]:
    """Draw a lake of `images` under `folder`, label it, and compute the figures.

    Raises `RuntimeError` with the job's log where the job fails.
    """
    lake, output, weights = folder / "lake", folder / "out", folder / "stand-in.safetensors"
    write_lake(lake, images)
    save_stand_in_checkpoint(weights)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scale.stand_in", *map(str, (lake, output, weights))]
    watched = watch(command, timeout_seconds=config.timeout_seconds)
    if watched.exit_code != 0:
        raise RuntimeError(f"exit code {watched.exit_code} at {images} images:\n" + "\n".join(watched.log[-20:]))
    plain = run_plain_loop(Output.at(str(output)), folder / "plain", input_size=_INPUT_SIZE, images=config.plain_images)
    return make_figures(watched, output, images, plain), watched


def linearity(runs: Sequence[RunFigures]) -> str:
    """How much longer an image takes in the largest run than in the next smaller one, for both ways of timing."""
    last, before = runs[-1], runs[-2]
    return (
        f"an image of {last.images:,} against one of {before.images:,}: "
        f"{last.running_ms / before.running_ms - 1:+.1%} from the first row to the end, "
        f"{last.steady_ms / before.steady_ms - 1:+.1%} while steady"
    )


def measure(config: ScaleConfig) -> list[RunFigures]:
    """Measure all sizes; the results are written after each of them."""
    config.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for images in sorted(config.images):
        folder = Path(tempfile.mkdtemp(prefix="yolact-scale-"))
        try:
            figures, watched = measure_run(images, folder, config)
        finally:
            shutil.rmtree(folder)
        runs.append(figures)
        results = [asdict(run) | {"orchestration_cpu_ms": run.orchestration_cpu_ms} for run in runs]
        samples = [asdict(sample) for sample in watched.samples]
        (config.output / "scale.json").write_text(json.dumps({"runs": results, "samples": samples}, indent=1) + "\n")
        (config.output / "scale.md").write_text(markdown_table(runs))
        (config.output / "memory.svg").write_text(memory_plot(watched.samples, images))
        print(f"{images:,} images: {figures.steady_ms:.2f} ms each, {figures.total_seconds:.1f} s in all", flush=True)
    return runs


def main(config: ScaleConfig) -> None:
    """Measure, write, print the table."""
    # SIGTERM becomes an exception, so that the running job is ended and the temporary folder removed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    runs = measure(config)
    print((config.output / "scale.md").read_text())
    if len(runs) > 1:
        print(linearity(runs))


if __name__ == "__main__":
    run_benchmark(ScaleConfig, __doc__, main)
