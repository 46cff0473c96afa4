"""Computes the figures of one run from its samples, and writes them as a table and as an SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jinja2
import numpy as np

from benchmarks.scale.plain_loop import PlainLoop
from benchmarks.scale.watch import Sample, Watched

KINDS = ("driver", "workers", "services", "store")
#: shares of the images that must be done before times are taken, and before slopes are
TIME_FROM, SLOPE_FROM = 0.1, 0.2


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run. Milliseconds are per image, memory in MB (10⁶ bytes), slopes in MB per 10,000 images.

    "Steady" begins after a tenth of the images and ends when all have a row. "Total" is the whole life of the process.
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
    """MB per 10,000 images, from the first fifth of the images on; 0 is constant memory"""
    files: int
    file_megabytes: list[float]
    staged_left: int
    rows: int

    @property
    def running_ms(self) -> float:
        """Milliseconds per image from the first row to the end of the process, with publishing."""
        return 1000 * (self.total_seconds - self.first_row_seconds) / self.images

    @property
    def orchestration_cpu_ms(self) -> float:
        """CPU time of all but decoding: Ray, fetching, rows, commits."""
        return self.steady_cpu_ms - self.decode_cpu_ms


def make_figures(watched: Watched, output: Path, images: int, plain: PlainLoop) -> RunFigures:
    """The figures of a finished run. Raises `ValueError` where lake and run.json count different numbers of images."""
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

    NaN where there are fewer than three such samples.
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


_TEMPLATES = Path(__file__).parent
_WIDTH, _HEIGHT = 820, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 660, 34, 330
_LABELS = {
    "driver": ("driver, resident", "#1b6ca8"),
    "workers": ("Ray workers, own (USS)", "#c1440e"),
    "services": ("raylet, GCS, agents", "#5b8c2a"),
    "store": ("object store, in use", "#7a4fa3"),
}
#: least vertical distance of two labels at the ends of their lines
_LABEL_GAP = 16.0

_ROWS: dict[str, Callable[[RunFigures], str]] = {
    "process start to first row, s": lambda run: f"{run.first_row_seconds:.1f}",
    "total, s": lambda run: f"{run.total_seconds:.1f}",
    "total, ms per image": lambda run: f"{run.total_ms:.2f}",
    "first row to the end, ms per image": lambda run: f"{run.running_ms:.2f}",
    "steady, ms per image": lambda run: f"{run.steady_ms:.2f}",
    "steady, images/s": lambda run: f"{1000 / run.steady_ms:.0f}",
    "steady, CPU-ms per image, all processes": lambda run: f"{run.steady_cpu_ms:.2f}",
    "· decoding, in a plain loop": lambda run: f"{run.decode_cpu_ms:.2f}",
    "· all stages, in a plain loop": lambda run: f"{run.plain_cpu_ms:.2f}",
    "· orchestration (all − decoding)": lambda run: f"{run.orchestration_cpu_ms:.2f}",
    **{f"{_LABELS[kind][0]}: peak MB": lambda run, kind=kind: f"{run.peak[kind]:.0f}" for kind in KINDS},  # type: ignore[misc]
    **{
        f"{_LABELS[kind][0]}: MB per 10,000 images": lambda run, kind=kind: _signed(run.slope[kind])  # type: ignore[misc]
        for kind in KINDS
    },
    "published files": lambda run: f"{run.files}",
    "their sizes, MB": lambda run: ", ".join(f"{size:.1f}" for size in run.file_megabytes),
    "staged objects left": lambda run: f"{run.staged_left}",
}


def markdown_table(runs: Sequence[RunFigures]) -> str:
    """One column a run."""
    lines = ["| | " + " | ".join(f"{run.images:,} images" for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(map(value, runs)) + " |" for name, value in _ROWS.items()]
    return "\n".join(lines) + "\n"


def _signed(value: float) -> str:
    return "too short" if math.isnan(value) else f"{value:+.1f}"


def memory_plot(samples: Sequence[Sample], images: int) -> str:
    """An SVG of memory over the seconds of a run, with marks where a part of the images was done."""
    most_seconds = max(sample.seconds for sample in samples)
    most_memory = max(getattr(sample, kind) for sample in samples for kind in KINDS)
    x_step, y_step = _round_step(most_seconds), _round_step(most_memory)
    x_end, y_end = most_seconds, y_step * math.ceil(most_memory / y_step)

    def x(seconds: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * seconds / x_end, 1)

    def y(memory: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * memory / y_end, 1)

    last = samples[-1]
    ends = _apart({kind: y(getattr(last, kind)) for kind in KINDS})
    marks = []
    for share, label in ((1 / images, "first row"), (0.2, "20 %"), (0.5, "50 %"), (1.0, "all rows")):
        reached = [sample.seconds for sample in samples if sample.images >= share * images]
        marks += [{"at": x(reached[0]), "label": label}] if reached else []
    return (
        _environment()
        .get_template("memory.svg")
        .render(
            width=_WIDTH,
            height=_HEIGHT,
            left=_LEFT,
            right=_RIGHT,
            top=_TOP,
            bottom=_BOTTOM,
            title=f"Memory while labelling {images:,} small images",
            x_title="seconds since the process started",
            y_title="MB",
            x_ticks=[{"at": x(i * x_step), "label": f"{i * x_step:g}"} for i in range(int(x_end // x_step) + 1)],
            y_ticks=[{"at": y(i * y_step), "label": f"{i * y_step:,g}"} for i in range(round(y_end / y_step) + 1)],
            marks=marks,
            lines=[
                {
                    "points": " ".join(f"{x(sample.seconds)},{y(getattr(sample, kind))}" for sample in samples),
                    "colour": _LABELS[kind][1],
                    "label": _LABELS[kind][0],
                    "label_at": ends[kind] + 4,
                }
                for kind in KINDS
            ],
        )
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _round_step(most: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides `most` in five to ten."""
    rough = max(most, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return max(step * power for step in (1, 2, 5) if step * power <= rough)


def _apart(places: dict[str, float]) -> dict[str, float]:
    """The heights, moved up where their labels would overlap."""
    moved: dict[str, float] = {}
    above = math.inf
    for kind in sorted(places, key=places.__getitem__, reverse=True):
        above = min(places[kind], above - _LABEL_GAP)
        moved[kind] = above
    return moved
