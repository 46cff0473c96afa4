"""CPU time of a training sample of the "ssd" augmentation, by stage: the release's order of steps against one sampling.

    python -m benchmarks.sample_speed --annotations instances_train.json --images train/

Both ways take the same images with the same random numbers, in turns, in one thread. "before" works at the image's own
resolution, step by step (`tests/support/reference_augmentation.py`). "after" is what training does. Its colours are
changed where the network runs: on a GPU that costs the CPU nothing.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.harness import run_benchmark
from jobs.train.data import open_image_set
from tests.support.reference_augmentation import reference_ssd
from yolact.config import get_config
from yolact.images.decode import decode_image
from yolact.training.augmentation import build_augmentation
from yolact.training.colours import change_colours
from yolact.training.packed import ImageTruth, PackedImages


@dataclass(frozen=True)
class SampleBenchConfig:
    """Options of the measurement."""

    annotations: str
    """COCO instances JSON"""
    images: str
    """folder of the images"""
    config: str = "yolact_resnet50"
    """model config, which gives the sizes of input and masks"""
    count: int = 100
    """images, the first ones that have objects"""
    rounds: int = 3
    """how often both ways take all images; the medians are printed"""


class Stopwatch:
    """CPU milliseconds by stage."""

    def __init__(self) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the CPU time of the block to a stage."""
        start = time.process_time()
        yield
        self.times[name].append(1000 * (time.process_time() - start))


@dataclass(frozen=True)
class Subject:
    """One image of the measurement."""

    data: bytes
    truth: ImageTruth
    seed: int


def measure(subjects: list[Subject], input_size: int, mask_size: int, rounds: int) -> Stopwatch:
    """Both ways in turns over all images."""
    watch = Stopwatch()
    augment = build_augmentation("ssd", input_size, mask_size)

    def before(pixels: np.ndarray, subject: Subject) -> None:
        with watch.stage("before: augmentation"):
            reference_ssd(pixels, subject.truth, input_size, mask_size)

    def after(pixels: np.ndarray, subject: Subject) -> None:
        with watch.stage("after: augmentation"):
            made = augment(pixels, subject.truth)
        with watch.stage("after: colours, on the device of the network"):
            if made.colours.is_one:
                change_colours(made.image[None], torch.tensor([made.colours]))

    ways: list[Callable[[np.ndarray, Subject], None]] = [before, after]
    for _ in range(rounds):
        for subject in subjects:
            with watch.stage("decoding, in both"):
                pixels = decode_image(subject.data)
            for way in ways:
                torch.manual_seed(subject.seed)
                way(pixels, subject)
            ways.reverse()
    return watch


def main(config: SampleBenchConfig) -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    images = open_image_set(config.annotations, config.images, "training set", skip_broken=True)
    packed = PackedImages(images.data)
    model = get_config(config.config)
    truths = [(position, packed.truth(position)) for position in range(len(packed))]
    chosen = [(position, truth) for position, truth in truths if not truth.is_crowd.all()][: config.count]
    subjects = [Subject(images.read_bytes(packed.file_name(p)), truth, seed=p) for p, truth in chosen]
    watch = measure(subjects, model.input_size, model.prototype_size, config.rounds)
    print(f"{len(subjects)} images, input of {model.input_size} px, {config.rounds} rounds, CPU-ms an image")
    print(f"{'stage':<50}{'mean':>8}{'median':>8}{'most':>8}")
    for name, times in watch.times.items():
        print(f"{name:<50}{statistics.mean(times):>8.2f}{statistics.median(times):>8.2f}{max(times):>8.2f}")


if __name__ == "__main__":
    run_benchmark(SampleBenchConfig, __doc__, main)
