"""Annotated images as training samples, each a function of (seed, epoch, slot)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, ground_truth_arrays
from yolact.images.decode import decode_image
from yolact.training.augmentation import Transform


class TrainingSample(NamedTuple):
    """One augmented picture with its target."""

    image: Tensor
    """(3, S, S) uint8 RGB"""
    target: dict[str, Any]
    """see `yolact.losses.Target`"""
    image_id: int | str


class TrainingBatch(NamedTuple):
    """Samples put together."""

    images: Tensor
    """(B, 3, S, S) uint8 RGB"""
    targets: list[dict[str, Any]]
    image_ids: list[int | str]


class TrainingDataset(torch.utils.data.Dataset[TrainingSample]):
    """Reads, decodes and augments the images of a data set.

    An item is asked for by (epoch, slot): whichever process makes it, and however often the run was interrupted, it
    comes out the same. Each image has a slot, or several where one window shows only a part of it.

    Args:
        data: images and annotations, already free of problems.
        read_bytes: gives the bytes of an image by its file name.
        transform: see `yolact.augmentation.build_augmentation`.
        seed: of the run.
        pixels_per_slot: an image gets a slot for each so many pixels of its side (the root of its area), at least
            one; None gives each image one.
    """

    def __init__(
        self,
        data: AnnotatedImages,
        read_bytes: Callable[[str], bytes],
        transform: Transform,
        seed: int = 0,
        pixels_per_slot: float | None = None,
    ) -> None:
        self.data = data
        self.read_bytes = read_bytes
        self.transform = transform
        self.seed = seed
        sides = np.sqrt([image.height * image.width for image in data.images])
        slots = np.ones(len(sides)) if pixels_per_slot is None else (sides / pixels_per_slot).round().clip(min=1)
        self.positions = np.repeat(np.arange(len(sides)), slots.astype(np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: tuple[int, int]) -> TrainingSample:
        epoch, slot = item
        image = self.data.images[int(self.positions[slot])]
        sample = load_sample(image, self.data.label_of_category, self.read_bytes(image.file_name))
        seed = int(np.random.SeedSequence((self.seed, epoch, slot)).generate_state(1, np.uint32)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sample = self.transform(sample)
        pixels = sample.pop("image")
        return TrainingSample(pixels, {**sample, "seed": seed}, image.image_id)


def load_sample(image: AnnotatedImage, label_of_category: dict[int, int], data: bytes) -> dict[str, Tensor]:
    """Decode an image and its ground truth, see `yolact.augmentation`.

    Raises:
        ValueError: if the bytes are no image, or one of another size than annotated; names the image id.
    """
    try:
        pixels = decode_image(data)
    except ValueError as error:
        raise ValueError(f"image {image.image_id!r} ({image.file_name}): {error}") from error
    if pixels.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"image {image.image_id!r} ({image.file_name}) is {pixels.shape[1]}×{pixels.shape[0]} px but annotated as "
            f"{image.width}×{image.height}; correct its entry or leave it out"
        )
    sample = {name: torch.from_numpy(array) for name, array in ground_truth_arrays(image, label_of_category).items()}
    # a view across planes is fine for what follows, but the crop and resize kernels want the channels first
    sample["image"] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return sample


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Stack the pictures; targets stay a list, since every image has another number of objects."""
    return TrainingBatch(
        torch.stack([sample.image for sample in samples]),
        [sample.target for sample in samples],
        [sample.image_id for sample in samples],
    )


class EpochSampler(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, slot) for one worker, from any step on: the order is a function of (seed, epoch) alone.

    The stream of epochs is cut into global batches, and each worker takes its slice of every batch, so that the
    global batches are the same for any number of workers.

    Args:
        length: number of slots in an epoch.
        global_batch_size: images per step over all workers, a multiple of `num_workers`.
        num_steps: where the run ends.
        first_step: where this one starts (0-based).
        worker: index of this worker.
        num_workers: how many there are.
        seed: of the run.

    Raises:
        ValueError: if there is no image or the batch cannot be split evenly.
    """

    def __init__(
        self,
        length: int,
        global_batch_size: int,
        num_steps: int,
        first_step: int = 0,
        worker: int = 0,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        if length < 1:
            raise ValueError("the training set has no images left")
        if global_batch_size % num_workers:
            raise ValueError(f"a batch of {global_batch_size} images cannot be shared evenly by {num_workers} workers")
        self.length, self.global_batch_size, self.num_steps = length, global_batch_size, num_steps
        self.first_step, self.worker, self.num_workers, self.seed = first_step, worker, num_workers, seed

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step)

    def __iter__(self) -> Any:
        share = self.global_batch_size // self.num_workers
        order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        for step in range(self.first_step, self.num_steps):
            start = step * self.global_batch_size + self.worker * share
            batch = []
            for number in range(start, start + share):
                epoch, offset = divmod(number, self.length)
                if epoch != order[0]:
                    order = (epoch, epoch_order(self.length, self.seed, epoch))
                batch.append((epoch, int(order[1][offset])))
            yield batch


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """(length,) int64 order of the slots in an epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(length)
