"""The data of a training run: annotations and images at URIs, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import read_coco, settle_problems, tell_notes
from jobs.table.images import ImageSource
from jobs.table.policy_file import PolicyFile
from jobs.table.read import LabelRow, open_labels
from jobs.train.image_checks import check_images
from yolact.coco.annotations import (
    AnnotatedImage,
    AnnotatedImages,
    Annotation,
    AnnotationProblem,
)
from yolact.coco.checks import find_problems
from yolact.coco.file_names import FileNames
from yolact.training.packed import PackedImages


@dataclass(frozen=True)
class FolderImages:
    """Reads an image by its file name. It may be sent to other processes, which open connections of their own."""

    folder: str

    def __call__(self, file_name: str) -> bytes:
        return storage.read_bytes(f"{self.folder.rstrip('/')}/{file_name}")


@dataclass(frozen=True)
class ImageSet:
    """Annotated images and a function that reads them; sent to workers by pickle."""

    data: AnnotatedImages
    read_bytes: Callable[[str], bytes]
    """bytes of an image by its file name"""
    skip_broken: bool = False
    """leave out images that turn out to be broken later"""

    def pack(self) -> TrainingImages:
        """The same with its annotations in arrays, which take little memory in many processes."""
        return TrainingImages(PackedImages(self.data), self.read_bytes, self.skip_broken)


@dataclass(frozen=True)
class TrainingImages:
    """Annotated images to train on; sent to workers by pickle."""

    images: PackedImages
    read_bytes: Callable[[str], bytes]
    """bytes of an image by its file name"""
    skip_broken: bool = False
    """take the next image instead of one that turns out to be broken"""


@dataclass(frozen=True)
class InspectedSet:
    """A data set with everything that was found broken in it."""

    name: str
    data: AnnotatedImages
    read_bytes: Callable[[str], bytes]
    problems: tuple[AnnotationProblem, ...]

    def settle(self, skip_broken: bool) -> AnnotatedImages:
        """The data without what is broken.

        Raises:
            UsageError: if something is broken and `skip_broken` is off, or if nothing to learn is left.
        """
        data = settle_problems(self.data, self.problems, self.name, skip_broken=skip_broken)
        if not data.images:
            raise UsageError(f"{self.name} has no images")
        _refuse_without_objects(data, self.name)
        return data


def inspect_image_set(
    annotations: str,
    images: str | None,
    name: str,
    *,
    score_threshold: float = 0.5,
    policy: PolicyFile | None = None,
) -> InspectedSet:
    """Read annotations, and check them and the image files.

    Args:
        annotations: COCO JSON, or the label table of `yolact label`.
        images: folder of the images; None for a label table, whose images are read from the lake.
        name: of the data set, for messages.
        score_threshold: with a label table, least score of an instance of a class for which the policy has none.
        policy: which classes to learn, and under which names. Its thresholds and areas are for label tables alone.

    Raises:
        UsageError: if annotations or images are not there, if the annotations are in no format that is read, or if the
            policy does not fit their classes.
    """
    if not is_coco_file(annotations):
        data, reader = read_label_annotations(annotations, score_threshold, policy)
        return InspectedSet(name, data, reader, tuple(find_problems(data)))
    if images is None:
        raise UsageError(f"{annotations} needs the folder of its images as well")
    read = read_coco(annotations)
    tell_notes(read, name)
    if policy is not None:
        read = policy.resolve(read.class_names, f"the {name}").of_truth(read)
    files = list_files(images)
    data = with_files(read, files)
    problems = find_problems(data, files)
    problems += check_images(data, problems, files, name)
    return InspectedSet(name, data, FolderImages(images), tuple(problems))


def open_image_set(
    annotations: str,
    images: str | None,
    name: str,
    *,
    score_threshold: float = 0.5,
    policy: PolicyFile | None = None,
    skip_broken: bool = False,
) -> ImageSet:
    """A data set to train on. What is broken in it is reported by id, and left out with `skip_broken`.

    Args:
        annotations: see `inspect_image_set`.
        images: see `inspect_image_set`.
        name: see `inspect_image_set`.
        score_threshold: see `inspect_image_set`.
        policy: see `inspect_image_set`.
        skip_broken: leave out what is broken instead of raising.

    Raises:
        UsageError: if something is broken and `skip_broken` is off, or if nothing to learn is left.
    """
    inspected = inspect_image_set(annotations, images, name, score_threshold=score_threshold, policy=policy)
    return ImageSet(inspected.settle(skip_broken), inspected.read_bytes, skip_broken)


def is_coco_file(annotations: str) -> bool:
    """Whether `--annotations` is a file of annotations; else it is a label table: a folder, a pattern or Parquet."""
    name = annotations.lower()
    if name.endswith(".json"):
        return True
    return not name.endswith((".parquet", "/")) and storage.exists(annotations)


def list_files(folder: str) -> dict[str, storage.ObjectInfo]:
    """Path below a folder → size and etag of the file. Uses listings, not one request per file.

    Raises:
        UsageError: if the folder cannot be listed, or holds nothing.
    """
    prefix = (storage.split_uri(folder)[1] if storage.is_local(folder) else folder).rstrip("/") + "/"
    try:
        files = {entry.uri.removeprefix(prefix): entry for entry in storage.iter_objects(prefix)}
    except storage.StorageError as error:
        raise UsageError(f"cannot list the images in {folder}: {error}") from None
    if not files:
        raise UsageError(f"there are no files in the image folder {folder}")
    return files


def with_files(data: AnnotatedImages, files: Iterable[str]) -> AnnotatedImages:
    """The data set with each image's file name as the path below the folder that `FileNames` finds for it."""
    names = FileNames(files)
    images = tuple(replace(image, file_name=names.find(image.file_name) or image.file_name) for image in data.images)
    return replace(data, images=images)


def _refuse_without_objects(data: AnnotatedImages, name: str) -> None:
    if data.num_objects:
        return
    if data.num_crowds:
        raise UsageError(
            f"{name} has {data.num_crowds} crowd regions (iscrowd 1) and no other object; training leaves crowds out. "
            "CVAT writes iscrowd 1 for every brush mask: set it to 0 where a mask is one object"
        )
    raise UsageError(f"{name} has {len(data.images)} images without any object: there is nothing to learn from")


@dataclass(frozen=True)
class LabelledImages:
    """Reads the images of a label table from where they were labelled, by their ids."""

    source: ImageSource
    places: dict[str, tuple[str, str]]
    """image id → (file of the table that has its row, URI of the object that holds the image)"""

    def __call__(self, image_id: str) -> bytes:
        part, uri = self.places[image_id]
        (data,) = self.source.fetch(part, [(image_id, uri)])
        if not isinstance(data, bytes):
            raise ValueError(f"{image_id} can no longer be read: {data}")
        return data


def read_label_annotations(
    labels: str, score_threshold: float, policy: PolicyFile | None = None
) -> tuple[AnnotatedImages, LabelledImages]:
    """The images of a label table with their instances of at least a score; images that failed are left out.

    Args:
        labels: OUTPUT of `yolact label`, its `labels/` folder or one file.
        score_threshold: least score of an instance, 0–1, where the policy has none.
        policy: which classes to learn, under which names, and from which score and area on.

    Returns:
        The data set, with image ids as file names, and what reads its images.

    Raises:
        UsageError: if the table names no classes, or if the policy does not fit them.
    """
    table = open_labels(labels).under(policy, score_threshold)
    # a policy has the threshold of each class
    least = score_threshold if policy is None else 0.0
    names: dict[int, str] = dict(enumerate(table.class_names))
    images, places = [], {}
    for piece in table.pieces():
        for row in piece.images():
            if not row.ok or row.height is None or row.width is None:
                continue
            names.update({i.label: i.category for i in row.instances if i.label not in names})
            places[row.image_id] = (piece.file_name, row.uri)
            annotations = _annotations(row, least)
            images.append(AnnotatedImage(row.image_id, row.image_id, row.height, row.width, annotations))
    if not names:
        raise UsageError(f"{labels} has no instances and its run names no classes: there is nothing to learn from")
    # labels are positions among the classes: a class without instances keeps its position
    categories = {label: names.get(label, f"class {label}") for label in range(max(names) + 1)}
    return AnnotatedImages(tuple(images), categories), LabelledImages(ImageSource.of(table), places)


def _annotations(row: LabelRow, score_threshold: float) -> tuple[Annotation, ...]:
    return tuple(
        Annotation(f"{row.image_id}:{instance.index}", instance.label, instance.bbox, instance.stored_rle)
        for instance in row.instances
        if instance.score >= score_threshold and instance.area > 0 and min(instance.bbox[2:]) > 0
    )
