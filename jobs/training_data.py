"""The data of a training run: annotations and images at URIs, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from jobs import storage
from jobs.errors import UsageError
from yolact.augmentation import build_augmentation
from yolact.coco import AnnotatedImages, Problem, find_problems, parse_coco, without_problems
from yolact.dataset import EpochSampler, TrainingBatch, TrainingDataset, collate

#: problems told one by one; the rest is counted
PROBLEMS_SHOWN = 20

@dataclass(frozen=True)
class ImageReader:
    """Reads an image by its file name from a folder; travels to loader processes, where it opens its own connection."""

    folder: str | None
    """None where file names are whole URIs"""

    def __call__(self, file_name: str) -> bytes:
        return storage.read_bytes(self.uri(file_name))

    def uri(self, file_name: str) -> str:
        return file_name if self.folder is None else f"{self.folder.rstrip('/')}/{file_name}"

def read_annotations(uri: str, score_threshold: float = 0.5) -> AnnotatedImages:
    """COCO JSON, or the label table of `yolact label` (then file names are the images' URIs).

    Raises:
        UsageError: if it is neither.
    """
    if not uri.endswith(".json"):
        from jobs.training_labels import read_label_annotations

        return read_label_annotations(uri, score_threshold)
    try:
        return parse_coco(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UsageError(str(error)) from None

def check_data(data: AnnotatedImages, images: str | None, name: str, skip_broken: bool) -> AnnotatedImages:
    """Report everything broken in a data set, by id; leave it out if asked to.

    Args:
        data: what `read_annotations` gave.
        images: folder of the images, or None where file names are URIs.
        name: of the data set, for messages.
        skip_broken: go on without what is broken.

    Raises:
        UsageError: if something is broken and `skip_broken` is off, or if nothing is left.
    """
    problems = find_problems(data, None if images is None else existing_files(images, data))
    for line in problem_lines(problems):
        print(f"{name}: {line}")
    if problems and not skip_broken:
        raise UsageError(
            f"{name} has {len(problems)} broken annotations or images, see above; "
            "mend them, or leave them out with --skip-broken"
        )
    data = without_problems(data, problems)
    if not data.images:
        raise UsageError(f"{name} has no images")
    return data

def existing_files(folder: str, data: AnnotatedImages) -> set[str]:
    """Which of the data set's file names exist below a folder, from listings, not from one request per file."""
    wanted = {image.file_name for image in data.images}
    prefix = folder.rstrip("/") + "/"
    try:
        found = {entry.uri.removeprefix(prefix) for entry in storage.list_objects(prefix)}
    except storage.StorageError as error:
        raise UsageError(f"cannot list the images in {folder}: {error}") from None
    return wanted & found

def problem_lines(problems: Iterable[Problem]) -> Iterator[str]:
    """Problems as lines for people, those beyond the first twenty counted."""
    problems = list(problems)
    for problem in problems[:PROBLEMS_SHOWN]:
        of = f"annotation {problem.annotation_id!r}" if problem.annotation_id is not None else "image"
        where = f" of image {problem.image_id!r}" if problem.annotation_id is not None else f" {problem.image_id!r}"
        yield f"{of}{where} {problem.message}"
    if len(problems) > PROBLEMS_SHOWN:
        yield f"and {len(problems) - PROBLEMS_SHOWN} more"

def build_loader(
    data: AnnotatedImages,
    images: str | None,
    settings: dict[str, Any],
    *,
    input_size: int,
    mask_size: int,
    first_step: int,
    last_step: int,
    worker: int = 0,
    num_workers: int = 1,
) -> torch.utils.data.DataLoader[TrainingBatch]:
    """Batches of this worker from a step on.

    Args:
        data: checked annotations.
        images: folder of the images, or None.
        settings: `augmentation`, `seed`, `batch_size` and `loader_processes` of the run.
        input_size: side of the network input.
        mask_size: side of the targets' masks.
        first_step: 0-based.
        last_step: where the run ends.
        worker: index of this worker.
        num_workers: how many share each batch.
    """
    transform = build_augmentation(settings["augmentation"], input_size, mask_size)
    dataset = TrainingDataset(data, ImageReader(images), transform, settings["seed"])
    sampler = EpochSampler(
        len(dataset), settings["batch_size"], last_step, first_step, worker, num_workers, settings["seed"]
    )
    processes = settings["loader_processes"]
    return torch.utils.data.DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=processes,
        collate_fn=collate,
        prefetch_factor=4 if processes else None,
        worker_init_fn=_one_thread,
        multiprocessing_context="fork" if processes else None,
    )

def _one_thread(_: int) -> None:
    """Loader processes share the cores with the network: more threads each would only get in each other's way."""
    torch.set_num_threads(1)

