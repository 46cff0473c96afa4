"""Annotated images as training samples, each a function of (seed, epoch, slot)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolact.images.decode import decode_image
from yolact.training.augmentation import Augmentation
from yolact.training.colours import ColourChange
from yolact.training.packed import PackedImages
from yolact.training.targets import BatchTargets, ImageTargets, TargetMaker, batch_targets


class TrainingSample(NamedTuple):
    """One augmented image with its target."""

    image: Tensor
    """(3, S, S) uint8 RGB, channels last in memory"""
    targets: ImageTargets
    colours: ColourChange
    """still to be applied"""
    image_id: int | str


class TrainingBatch(NamedTuple):
    """The samples of one step, as one worker gets them."""

    images: Tensor
    """(B, 3, S, S) uint8 RGB, channels last in memory"""
    targets: BatchTargets
    colours: Tensor | None
    """(B, 8) float32 as in `ColourChange`, still to be applied; None where no image changes"""
    image_ids: list[int | str]


class TrainingDataset(torch.utils.data.Dataset[TrainingSample]):
    """Reads, decodes and augments the images of a data set.

    The key of an item is (epoch, slot). An item is the same whichever process makes it, and however often the run was
    interrupted. An image has one slot, or several where one window shows only a part of the image.

    Args:
        images: images and annotations.
        read_bytes: gives the bytes of an image by its file name.
        augment: see `yolact.training.augmentation.build_augmentation`.
        make_targets: for the model that is trained.
        seed: of the run.
        pixels_per_slot: an image has one slot for this many pixels of its side (the square root of its area), at least
            one. None gives each image one slot.
    """

    def __init__(
        self,
        images: PackedImages,
        read_bytes: Callable[[str], bytes],
        augment: Augmentation,
        make_targets: TargetMaker,
        seed: int = 0,
        pixels_per_slot: float | None = None,
    ) -> None:
        self.images = images
        self.read_bytes = read_bytes
        self.augment = augment
        self.make_targets = make_targets
        self.seed = seed
        self.positions = np.repeat(np.arange(len(images), dtype=np.int32), slots_of(images, pixels_per_slot))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: tuple[int, int]) -> TrainingSample:
        epoch, slot = item
        position = int(self.positions[slot])
        pixels = self._decode(position)
        seed = int(np.random.SeedSequence((self.seed, epoch, slot)).generate_state(1, np.uint32)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = self.augment(pixels, self.images.truth(position))
        targets = self.make_targets(
            {
                "boxes": made.boxes,
                "labels": made.labels,
                "masks": made.masks,
                "is_crowd": made.is_crowd,
                "seed": seed,
            }
        )
        return TrainingSample(made.image, targets, made.colours, self.images.image_id(position))

    def _decode(self, position: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB.

        Raises:
            ValueError: if the bytes are no image, or if its size is not the annotated one; names the image id.
        """
        name = self.images.file_name(position)
        try:
            pixels = decode_image(self.read_bytes(name))
        except ValueError as error:
            raise ValueError(f"image {self.images.image_id(position)!r} ({name}): {error}") from error
        height, width = self.images.sizes[position].tolist()
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"image {self.images.image_id(position)!r} ({name}) is {pixels.shape[1]}×{pixels.shape[0]} px but "
                f"annotated as {width}×{height}; correct its entry or leave it out"
            )
        return pixels


def slots_of(images: PackedImages, pixels_per_slot: float | None = None) -> np.ndarray:
    """(I,) int64 slots of each image in an epoch, see `TrainingDataset`."""
    if pixels_per_slot is None:
        return np.ones(len(images), np.int64)
    sides = np.sqrt(images.sizes.prod(axis=1, dtype=np.int64))
    return (sides / pixels_per_slot).round().clip(min=1).astype(np.int64)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Put samples together to a batch."""
    images = torch.stack([sample.image.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    changes = [sample.colours for sample in samples]
    return TrainingBatch(
        images,
        batch_targets([sample.targets for sample in samples]),
        torch.tensor(changes) if any(change.is_one for change in changes) else None,
        [sample.image_id for sample in samples],
    )


class EpochSampler(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, slot) for one worker, from any step on: the order is a function of (seed, epoch) alone.

    The stream of epochs is cut into global batches. Each worker takes its share of every batch, so that the global
    batches are the same for any number of workers. Shares differ by at most one image.

    Args:
        length: number of slots in an epoch.
        global_batch_size: images per step over all workers, at least one for each.
        num_steps: the step at which the run ends.
        first_step: the step at which this one starts (0-based).
        worker: index of this worker.
        num_workers: how many workers share each batch.
        seed: of the run.

    Raises:
        ValueError: if there is no image, or more workers than images in a batch.
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
        if global_batch_size < num_workers:
            raise ValueError(
                f"{num_workers} workers cannot share a batch of {global_batch_size} images: use at most as many "
                "workers as images"
            )
        self.length, self.global_batch_size, self.num_steps = length, global_batch_size, num_steps
        self.first_step, self.worker, self.num_workers, self.seed = first_step, worker, num_workers, seed

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.worker * self.global_batch_size // self.num_workers
        last = (self.worker + 1) * self.global_batch_size // self.num_workers
        order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        for step in range(self.first_step, self.num_steps):
            start = step * self.global_batch_size
            batch = []
            for number in range(start + first, start + last):
                epoch, offset = divmod(number, self.length)
                if epoch != order[0]:
                    order = (epoch, epoch_order(self.length, self.seed, epoch))
                batch.append((epoch, int(order[1][offset])))
            yield batch


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """(length,) int64 order of the slots in an epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(length)
