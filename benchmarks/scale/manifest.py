"""Measures start and resume of a label run with a large manifest: time and memory until the first unit is committed.

    python -m benchmarks.scale.manifest --output scale/

Writes a manifest of 10 million images with invented ids, in the job's own format. Runs the job on it until its first
unit is committed, and ends it by SIGTERM. Then publishes half of the parts, commits some units of the next ones, and
runs the job again. The search for what is left to do is also timed alone. Writes manifest.json and manifest.md. Takes
two minutes on two cores. Needs psutil, which the `dev` extra brings.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness import run_benchmark
from benchmarks.scale.invented import write_manifest, write_published, write_shards, write_staged
from benchmarks.scale.stand_in import save_stand_in_checkpoint
from benchmarks.scale.watch import ProcessTree
from jobs import storage
from jobs.label.manifest.listing import compare, listing_digest
from jobs.label.manifest.parts import Sizes, read_generations
from jobs.lake import expand_inputs
from jobs.table.output import Output

_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class ManifestScaleConfig:
    """Options of the measurement."""

    output: Path
    """folder for the results"""
    rows: int = 10_000_000
    """images in the manifest"""
    images_per_shard: int = 10_000
    """images of one object of the lake"""
    published: float = 0.5
    """share of the parts that are published before the second run"""
    staged_parts: int = 4
    """parts of which half of the units are committed before the second run"""
    place: str | None = None
    """empty folder or prefix for lake and OUTPUT, any fsspec URI; a temporary folder if not given"""
    timeout_seconds: float = 300.0
    """seconds that one start may take"""


@dataclass(frozen=True)
class Todo:
    """The search for what is left to do: `seconds` by step, `peak_mb` of resident memory (10⁶ bytes)."""

    images: int
    units: int
    published_parts: int
    staged_units: int
    seconds: dict[str, float]
    peak_mb: float

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


@dataclass
class Start:
    """One run of the job until its first unit was committed. Seconds count from the process's start; peaks in MB."""

    ray_seconds: float = 0.0
    """until Ray was up and the plan for the cluster was made"""
    first_row_seconds: float = 0.0
    done_before: int = 0
    """images that had a published row already"""
    stop_seconds: float = 0.0
    """from SIGTERM to the end of the process"""
    driver_peak_mb: float = 0.0
    """resident memory of the driver"""
    all_peak_mb: float = 0.0
    """resident memory of the driver, and memory that only Ray's processes use (USS)"""
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ManifestFigures:
    """All figures of one measurement."""

    rows: int
    parts: int
    make_seconds: float
    """time to write the manifest, which is not the job's work"""
    start: Start
    todo: Todo
    resume: Start


def find_todo(lake: str, output_uri: str) -> Todo:
    """Find what is left to do with the job's own functions, as a run does before it starts Ray."""
    output = Output.at(output_uri)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - begin

    with timed("list the lake"):
        sources = expand_inputs([lake], exclude=output.uri)
        listing_digest(sources)
    with timed("read the generations"):
        generations = read_generations(output)
    with timed("compare"):
        state = compare(sources, generations)
    if state.new or state.changed:
        raise RuntimeError(f"{len(state.new)} new and {len(state.changed)} changed sources in a lake that stood still")
    with timed("list labels/"):
        published = output.published_parts()
    with timed("list staged units"):
        staged = output.staged_units()
    with timed("subtract"):
        todo = [part for generation in generations for part in generation.parts if part.number not in published]
        left = {part.number: set(part.unit_numbers()) - staged for part in todo}
    return Todo(
        images=sum(part.images for part in todo),
        units=sum(len(units) for units in left.values()),
        published_parts=len(published),
        staged_units=len(staged),
        seconds=seconds,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    )


def start_and_stop(lake: str, output: str, weights: Path, timeout_seconds: float) -> Start:
    """Run the job until a progress line shows the first new row, then end it by SIGTERM.

    Raises `RuntimeError` with the job's log where it ends by itself or takes longer than `timeout_seconds`.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scale.stand_in", lake, output, str(weights)]
    begin = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    start, done = Start(), threading.Event()
    reader = threading.Thread(target=_follow, args=(process, begin, start, done), daemon=True)
    reader.start()
    tree = ProcessTree(process.pid)
    try:
        while not done.wait(_SAMPLE_SECONDS):
            if process.poll() is not None or time.monotonic() - begin > timeout_seconds:
                raise RuntimeError("the job did not come to its first unit:\n" + "\n".join(start.log[-20:]))
            memory, _ = tree.look()
            start.driver_peak_mb = max(start.driver_peak_mb, memory["driver"])
            start.all_peak_mb = max(start.all_peak_mb, sum(memory.values()))
    finally:
        stop = time.monotonic()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        start.stop_seconds = time.monotonic() - stop
        reader.join(10)
    return start


def _follow(process: subprocess.Popen[str], begin: float, start: Start, done: threading.Event) -> None:
    assert process.stderr is not None
    first: int | None = None
    for line in process.stderr:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {}
        if "done" in entry:
            if first is None:
                first = start.done_before = entry["done"]
            elif entry["done"] > first and not done.is_set():
                start.first_row_seconds = time.monotonic() - begin
                done.set()
        elif "store_bytes" not in entry:
            start.log.append(line.rstrip())
            if entry.get("message", "").startswith("run "):
                start.ray_seconds = time.monotonic() - begin


def measure(config: ManifestScaleConfig, place: str) -> ManifestFigures:
    """Make a lake and an OUTPUT under `place`, and measure."""
    lake, output = f"{place}/lake", Output.at(f"{place}/out")
    begin = time.perf_counter()
    sources = write_shards(lake, -(-config.rows // config.images_per_shard))
    generation = write_manifest(output, sources, config.rows, Sizes())
    make_seconds = time.perf_counter() - begin
    print(f"a manifest of {config.rows:,} rows was made in {make_seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="yolact-weights-") as folder:
        weights = Path(folder) / "stand-in.safetensors"
        save_stand_in_checkpoint(weights)
        start = start_and_stop(lake, output.uri, weights, config.timeout_seconds)
        print(f"start: {start.first_row_seconds:.1f} s to the first row", flush=True)
        published = round(config.published * len(generation.parts))
        staged = generation.parts[published : published + config.staged_parts]
        for part in generation.parts[:published]:
            write_published(output, part)
        for part in staged:
            write_staged(output, part, part.units // 2)
        # in a process of its own, so that the peak of memory is only of this search
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            todo = pool.submit(find_todo, lake, output.uri).result()
        print(f"{todo.units:,} units left, found in {todo.total_seconds:.1f} s", flush=True)
        resume = start_and_stop(lake, output.uri, weights, config.timeout_seconds)
        print(f"resume: {resume.first_row_seconds:.1f} s to the first row", flush=True)
    return ManifestFigures(config.rows, len(generation.parts), make_seconds, start, todo, resume)


def markdown_table(figures: ManifestFigures) -> str:
    """A Markdown table of the steps, with their seconds and peaks of memory."""
    todo = figures.todo
    lines = [
        f"| {figures.rows:,} rows, {figures.parts} parts | seconds | peak MB, driver | peak MB, all processes |",
        "|---|---|---|---|",
        _start_row("start: nothing done yet → first row", figures.start),
        f"| find what is left: {todo.published_parts} parts published, {todo.staged_units:,} units committed, "
        f"{todo.units:,} units to do | {todo.total_seconds:.2f} | {todo.peak_mb:.0f} | |",
        *(f"| · {step} | {seconds:.2f} | | |" for step, seconds in todo.seconds.items()),
        _start_row("resume: half done → first new row", figures.resume),
    ]
    return "\n".join(lines) + "\n"


def _start_row(name: str, start: Start) -> str:
    return (
        f"| {name} (Ray up after {start.ray_seconds:.1f} s) | {start.first_row_seconds:.1f} | "
        f"{start.driver_peak_mb:.0f} | {start.all_peak_mb:.0f} |"
    )


def main(config: ManifestScaleConfig) -> None:
    """Measure, write, print the table."""
    config.output.mkdir(parents=True, exist_ok=True)
    # SIGTERM becomes an exception, so that the running job is ended and the temporary folder removed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if config.place is not None and storage.list_objects(config.place):
        sys.exit(f"--place {config.place} is not empty, and would be emptied at the end")
    place = config.place or tempfile.mkdtemp(prefix="yolact-manifest-")
    try:
        figures = measure(config, place.rstrip("/"))
    finally:
        if config.place is None:
            shutil.rmtree(place)
        else:
            storage.delete_objects([entry.uri for entry in storage.list_objects(place)])
    (config.output / "manifest.json").write_text(json.dumps(asdict(figures), indent=1) + "\n")
    (config.output / "manifest.md").write_text(markdown_table(figures))
    print(markdown_table(figures))


if __name__ == "__main__":
    run_benchmark(ManifestScaleConfig, __doc__, main)
