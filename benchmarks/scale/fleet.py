"""Measures how busy a fleet of GPUs would be kept, with stand-ins that sleep as long as a GPU would work.

    python -m benchmarks.scale.fleet --output fleet/

Every stand-in is a model actor with a GPU that only Ray counts, and sleeps for each image. So nearly all cores are left
for what feeds it. Their starts take turns on the cores of one machine, where real nodes start beside each other; so the
stand-ins wait until each of them has its first images. Writes fleet.json and prints it: the share of time that the
stand-ins slept, from the first sleep to the end of the last, the driver's CPU time, and whether a model actor was
started twice.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ray

from benchmarks.harness import run_benchmark
from benchmarks.scale.stand_in import fixed_detections, save_stand_in_checkpoint, write_lake
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime.ray_session import WORKER_ENVIRONMENT
from yolact.images.prepare import PreparedImage
from yolact.inference.predictor import Detections

_IMAGES_PER_UNIT = 64
#: seconds that a stand-in waits for the others' first images
_START_SECONDS = 600.0
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class FleetConfig:
    """Options of the measurement."""

    output: Path
    """folder for the results"""
    gpus: int = 16
    """stand-in GPUs, each with a model actor"""
    images_per_second: float = 60.0
    """of each stand-in"""
    images: int = 120_000
    """size of the lake"""


@dataclass(frozen=True)
class FleetFigures:
    """What was measured. Times are in seconds."""

    gpus: int
    images: int
    images_per_second: float
    """of all stand-ins together, from the first sleep to the end of the last one"""
    busy: float
    """share of that time that the stand-ins slept"""
    seconds: float
    driver_cpu_ms_per_unit: float
    """CPU time of the driver's process for 64 images, in the same time"""
    actors_started: int


class SleepingPredictor:
    """Sleeps as long as a GPU would work, one batch at a time, and writes down when. Detections are fixed."""

    batch_size = _IMAGES_PER_UNIT

    def __init__(self, folder: Path, *, gpus: int, seconds_per_image: float) -> None:
        self._seconds, self._gpus, self._lock = seconds_per_image, gpus, threading.Lock()
        self._started = folder / "started"
        self._slept = (folder / f"slept-{os.getpid()}").open("w")

    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """The same ellipses in each image, after the time that a GPU would take."""
        with self._lock:
            self._wait_for_the_others()
            begin = time.time()
            time.sleep(self._seconds * len(images))
            print(begin, time.time(), file=self._slept, flush=True)
        return [fixed_detections(image.height, image.width) for image in images]

    def _wait_for_the_others(self) -> None:
        mine = self._started / str(os.getpid())
        if mine.exists():
            return
        mine.touch()
        end = time.monotonic() + _START_SECONDS
        while len(list(self._started.iterdir())) < self._gpus and time.monotonic() < end:
            time.sleep(0.1)


@dataclass
class _Driver:
    """CPU time of this process over time."""

    times: list[float]
    cpu: list[float]

    def spent(self, begin: float, end: float) -> float:
        return float(np.interp(end, self.times, self.cpu) - np.interp(begin, self.times, self.cpu))


@contextmanager
def _watch_driver() -> Iterator[_Driver]:
    driver, stop = _Driver([], []), threading.Event()

    def look() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            driver.times.append(time.time())
            driver.cpu.append(time.process_time())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield driver
    finally:
        stop.set()
        thread.join()


def measure(config: FleetConfig, folder: Path) -> FleetFigures:
    """Label a lake of small images on stand-ins. Raises `RuntimeError` where the run fails."""
    write_lake(folder / "lake", config.images)
    save_stand_in_checkpoint(folder / "model.safetensors")
    (folder / "started").mkdir()
    label = LabelConfig(
        (str(folder / "lake"),),
        str(folder / "out"),
        weights=str(folder / "model.safetensors"),
        precision="float32",
        device="cuda",
        images_per_unit=_IMAGES_PER_UNIT,
    )

    def make_predictor(threads: int) -> SleepingPredictor:
        return SleepingPredictor(folder, gpus=config.gpus, seconds_per_image=1 / config.images_per_second)

    # as `yolact label` starts a Ray of its own; without a GPU that CUDA would show, Ray is told how many to count
    os.environ.update(WORKER_ENVIRONMENT)
    ray.init(num_gpus=config.gpus, include_dashboard=False, logging_level=logging.ERROR)
    try:
        with _watch_driver() as driver:
            end = label_lake(label, make_predictor=make_predictor)
    finally:
        ray.shutdown()
    end.show()
    if end.exit_code != 0:
        raise RuntimeError(f"the run ended with exit code {end.exit_code}")
    sleeps = np.concatenate([np.loadtxt(path, ndmin=2) for path in folder.glob("slept-*") if path.stat().st_size])
    first, last = float(sleeps[:, 0].min()), float(sleeps[:, 1].max())
    units = sum(1 for _ in range(0, config.images, _IMAGES_PER_UNIT))
    return FleetFigures(
        gpus=config.gpus,
        images=config.images,
        images_per_second=round(config.images / (last - first), 1),
        busy=round(float((sleeps[:, 1] - sleeps[:, 0]).sum()) / (config.gpus * (last - first)), 4),
        seconds=round(last - first, 1),
        driver_cpu_ms_per_unit=round(1000 * driver.spent(first, last) / units, 3),
        actors_started=len(list((folder / "started").iterdir())),
    )


def main(config: FleetConfig) -> None:
    """Measure, write, print."""
    config.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="yolact-fleet-") as folder:
        figures = measure(config, Path(folder))
    text = json.dumps(asdict(figures), indent=1)
    (config.output / "fleet.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    run_benchmark(FleetConfig, __doc__, main)
