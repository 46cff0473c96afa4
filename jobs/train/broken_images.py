"""Images that turn out to be broken during training: the damage is in the middle of the file, so no check found it.

Without `--skip-broken` such an image ends the run, and Ray does not start it again. With it, training takes the next
image instead, and validation counts the image as one without detections.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from jobs import storage
from jobs.train.data import ImageSet
from yolact.coco.annotations import AnnotatedImage
from yolact.images.decode import decode_image
from yolact.training.dataset import TrainingDataset, TrainingSample

log = logging.getLogger(__name__)

#: a run stops after this many broken images in a row, also with `--skip-broken`
MAX_BROKEN_IN_A_ROW = 100


class BrokenImageError(Exception):
    """An image of the data cannot be used. The message names it; trying again cannot help."""


class GuardedDataset(torch.utils.data.Dataset[TrainingSample]):
    """A data set that raises `BrokenImageError` for a broken image, or gives the next image that is not broken.

    An item depends only on (seed, epoch, slot).

    Args:
        dataset: gives a sample for (epoch, slot).
        skip_broken: replace broken images.
    """

    def __init__(self, dataset: TrainingDataset, skip_broken: bool) -> None:
        self.dataset, self.skip_broken = dataset, skip_broken
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> TrainingSample:
        epoch, slot = item
        message = ""
        for further in range(min(len(self.dataset), MAX_BROKEN_IN_A_ROW)):
            try:
                return self.dataset[epoch, (slot + further) % len(self.dataset)]
            except storage.TransientStorageError:
                raise
            except (ValueError, storage.StorageError) as error:
                message = str(error)
            if not self.skip_broken:
                break
            if message not in self._told:
                self._told.add(message)
                log.warning("%s; the next image takes its place", message)
        raise BrokenImageError(message)


def read_pixels(images: ImageSet, image: AnnotatedImage) -> np.ndarray | None:
    """An image as `decode_image` gives it; None for a broken one that is left out.

    Raises:
        BrokenImageError: if it is broken and may not be left out.
    """
    try:
        return decode_image(images.read_bytes(image.file_name))
    except storage.TransientStorageError:
        raise
    except (ValueError, storage.StorageError) as error:
        message = f"image {image.image_id!r} ({image.file_name}): {error}"
    if not images.skip_broken:
        raise BrokenImageError(message)
    log.warning("%s; it counts as an image without detections", message)
    return None


def message_of(error: BrokenImageError) -> str:
    """The message in one line, without the traceback that a loader process adds to it."""
    return str(error).strip().rpartition(f"{BrokenImageError.__name__}: ")[2].splitlines()[0]
