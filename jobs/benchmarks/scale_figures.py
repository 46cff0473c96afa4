"""From the samples of one run to its figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from jobs.benchmarks.scale_plain_loop import PlainLoop
from jobs.benchmarks.scale_sampling import Sample, Watched

KINDS = ("driver", "workers", "services", "store")
#: share of the images that a run's start is given before times and slopes are taken
TIME_FROM, SLOPE_FROM = 0.1, 0.2


@dataclass(frozen=True)
class RunFigures:
    """Of one run of `images`. Milliseconds are per image, memory in MB (10⁶ bytes), slopes in MB per 10,000 images.

    "Steady" is from a tenth of the images on until all have a row; "total" is from the start of the process to its end.
    """

    images: int
    total_seconds: float
    total_ms: float
    first_row_seconds: float
    """from the start of the process until the first image has a row"""
    steady_ms: float
    steady_cpu_ms: float
    """CPU time of all processes"""
    decode_cpu_ms: float
    """of decoding alone, in a plain loop"""
    plain_cpu_ms: float
    """of all stages, in a plain loop"""
    peak: dict[str, float]
    slope: dict[str, float]
    """after the first fifth of the images; zero is flat"""
    files: int
    file_megabytes: list[float]
    staged_left: int
    rows: int

    @property
    def running_ms(self) -> float:
        """Per image, from the first row to the end of the process: publishing and all."""
        return 1000 * (self.total_seconds - self.first_row_seconds) / self.images

    @property
    def orchestration_cpu_ms(self) -> float:
        """CPU time beside decoding: Ray, fetching, rows, commits."""
        return self.steady_cpu_ms - self.decode_cpu_ms


def make_figures(watched: Watched, output: Path, images: int, plain: PlainLoop) -> RunFigures:
    """Figures of a run that ended well. Raises `ValueError` where its books do not balance."""
    begin, begin_images = _when(watched.progress, TIME_FROM * images)
    end, _ = _when(watched.progress, images)
    cpu = np.interp([begin, end], [s.seconds for s in watched.samples], [s.cpu_seconds for s in watched.samples])
    files = sorted((output / "labels").iterdir())
    counts = json.loads((output / "run.json").read_text())["counts"]
    if counts["images"] != images or counts["ok"] != images:
        raise ValueError(f"{images} images in the lake, {counts} in run.json")
    steady = images - begin_images
    return RunFigures(
        images=images,
        total_seconds=watched.seconds,
        total_ms=1000 * watched.seconds / images,
        first_row_seconds=_when(watched.progress, 1)[0],
        steady_ms=1000 * (end - begin) / steady,
        steady_cpu_ms=1000 * float(cpu[1] - cpu[0]) / steady,
        decode_cpu_ms=plain.decode_cpu_ms,
        plain_cpu_ms=plain.all_cpu_ms,
        peak={kind: max(getattr(sample, kind) for sample in watched.samples) for kind in KINDS},
        slope={kind: slope(watched.samples, kind, images) for kind in KINDS},
        files=len(files),
        file_megabytes=[file.stat().st_size / 1e6 for file in files],
        staged_left=sum(1 for path in (output / "_state/staging").rglob("*") if path.is_file()),
        rows=counts["images"],
    )


def slope(samples: Sequence[Sample], kind: str, images: int) -> float:
    """MB per 10,000 images by least squares, over the samples between a fifth of the images and the last one.

    NaN where they are fewer than three.
    """
    chosen = [sample for sample in samples if SLOPE_FROM * images <= sample.images < images]
    if len(chosen) < 3:
        return float("nan")
    done = np.array([sample.images for sample in chosen], np.float64)
    memory = np.array([getattr(sample, kind) for sample in chosen])
    done -= done.mean()
    return float(10_000 * (done @ memory) / (done @ done))


def _when(progress: Sequence[tuple[float, int]], images: float) -> tuple[float, int]:
    """Second at which at least `images` were done, and how many were."""
    for _, (seconds, done) in pairwise([(0.0, 0), *progress]):
        if done >= images:
            return seconds, done
    raise ValueError(f"the run never had {images:.0f} images done")
