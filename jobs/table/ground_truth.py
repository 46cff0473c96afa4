"""Opens annotation files for every command, and finds which row of a label table belongs to which of their images."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.table.read import LabelRow
from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, AnnotationProblem
from yolact.coco.checks import find_problems, without_problems
from yolact.coco.evaluation import DetectedInstance
from yolact.coco.file_names import FileNames
from yolact.coco.reading import parse_coco

NAMES_SHOWN = 5
#: problems that are printed; the others are only counted
PROBLEMS_SHOWN = 20


def read_coco(uri: str) -> AnnotatedImages:
    """Read COCO instances JSON, without checks of its annotations. Raises `UsageError` for anything else."""
    try:
        return parse_coco(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except storage.ObjectMissingError:
        raise UsageError(f"there is no annotation file {uri}") from None
    except storage.TransientStorageError:
        raise
    except storage.StorageError as error:  # a folder, or no right to read
        raise UsageError(str(error)) from None


def read_ground_truth(uri: str, name: str = "the ground truth", *, skip_broken: bool = False) -> AnnotatedImages:
    """Read COCO instances JSON and check that every annotation is a mask within its image.

    Args:
        uri: of the JSON.
        name: of the data set, for messages.
        skip_broken: leave out broken annotations and images and print them, instead of raising.

    Raises:
        UsageError: if there is no such file, if it is not COCO's, or if an annotation or image is broken.
    """
    data = read_coco(uri)
    tell_notes(data, name)
    return settle_problems(data, find_problems(data), name, skip_broken=skip_broken)


def tell_notes(data: AnnotatedImages, name: str) -> None:
    """Print on stderr what the reader corrected or ignored."""
    for note in data.notes:
        print(f"{name}: {note}", file=sys.stderr)


def settle_problems(
    data: AnnotatedImages, problems: Sequence[AnnotationProblem], name: str, *, skip_broken: bool
) -> AnnotatedImages:
    """Print the problems on stderr. Then raise `UsageError`, or with `skip_broken` leave out what the problems name."""
    for line in problem_lines(problems):
        print(f"{name}: {line}", file=sys.stderr)
    if problems and not skip_broken:
        raise UsageError(
            f"{name} has {len(problems)} broken annotations or images, such as: {problems[0]}; "
            "correct them, or leave them out with --skip-broken"
        )
    return without_problems(data, problems) if problems else data


def problem_lines(problems: Sequence[AnnotationProblem]) -> Iterator[str]:
    """Problems as lines of text. After `PROBLEMS_SHOWN` of them, one line counts the others by kind."""
    yield from map(str, problems[:PROBLEMS_SHOWN])
    others = Counter(problem.kind for problem in problems[PROBLEMS_SHOWN:])
    if others:
        kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common())
        yield f"and {others.total()} more ({kinds})"


@dataclass
class MatchCounts:
    """How many images and instances were compared, and how many were not, by reason."""

    ground_truth_images: int = 0
    labelled: int = 0
    """ground-truth images with a row of status ok"""
    missing: list[str] = field(default_factory=list)
    """ground-truth images without a row: they count as images without detections"""
    failed: dict[str, int] = field(default_factory=dict)
    """ground-truth images whose row has another status than ok, by status: they count as images without detections"""
    other_size: list[str] = field(default_factory=list)
    """images with another size in the table, whose masks cannot be compared: they count as images without detections"""
    turned: int = 0
    """of `other_size`, images whose height and width are swapped in the table"""
    unknown_images: int = 0
    """rows of images that the ground truth does not have: left out"""
    unknown_categories: dict[str, int] = field(default_factory=dict)
    """instances of categories that the ground truth does not have: left out"""

    def lines(self) -> Iterator[str]:
        """The counts as lines of text. The first line is always there, the others only where their count is not 0."""
        yield f"{self.labelled} of {self.ground_truth_images} ground-truth images are labelled"
        if self.missing:
            yield f"{len(self.missing)} are missing from the labels and count as empty: {_some(self.missing)}"
        for status, count in sorted(self.failed.items()):
            yield f"{count} have status {status!r} in the labels and count as empty"
        if self.other_size:
            yield f"{len(self.other_size)} have another size in the labels and count as empty: {_some(self.other_size)}"
        if self.turned:
            yield f"{self.turned} of these have height and width swapped, as before their EXIF turn"
        if self.unknown_images:
            yield f"{self.unknown_images} labelled images are not in the ground truth and are left out"
        for category, count in sorted(self.unknown_categories.items()):
            yield f"{count} instances of category {category!r}, which the ground truth lacks, are left out"


@dataclass
class MatchedLabels:
    """Detections with the image and category ids of the ground truth, and the counts of the comparison."""

    detections: list[DetectedInstance]
    counts: MatchCounts


def match_labels(rows: Iterable[LabelRow], truth: AnnotatedImages) -> MatchedLabels:
    """Match the rows of a label table with the images of a ground truth, by file name and category name.

    Args:
        rows: the rows of the table.
        truth: the ground truth; `ImageFinder` finds a row's image in it.

    Raises:
        UsageError: if two rows claim the same image, or if a mask of the table is damaged.
    """
    find = ImageFinder(truth)
    category_ids = {name: category_id for category_id, name in truth.categories.items()}
    counts = MatchCounts(ground_truth_images=len(truth.images))
    failed: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    seen: dict[int | str, str] = {}
    detections: list[DetectedInstance] = []
    for row in rows:
        image = find(row)
        if image is None:
            counts.unknown_images += 1
            continue
        if image.image_id in seen:
            raise UsageError(
                f"{seen[image.image_id]} and {row.image_id} both match {image.file_name} of the ground truth; "
                "evaluate a table that has it once"
            )
        seen[image.image_id] = row.image_id
        if not row.ok:
            failed[row.status] += 1
        elif (row.height, row.width) != (image.height, image.width):
            counts.other_size.append(image.file_name)
            counts.turned += (row.width, row.height) == (image.height, image.width)
        else:
            counts.labelled += 1
            for instance in row.instances:
                if instance.category not in category_ids:
                    unknown[instance.category] += 1
                    continue
                detections.append(
                    DetectedInstance(
                        image_id=image.image_id,
                        category_id=category_ids[instance.category],
                        score=instance.score,
                        mask_score=instance.mask_score,
                        bbox=instance.bbox,
                        mask=instance.rle,
                    )
                )
    counts.failed, counts.unknown_categories = dict(failed), dict(unknown)
    counts.missing = [image.file_name for image in truth.images if image.image_id not in seen]
    return MatchedLabels(detections, counts)


class ImageFinder:
    """Finds the ground-truth image of a label row by the rule of `FileNames`."""

    def __init__(self, truth: AnnotatedImages) -> None:
        self._images = {image.file_name: image for image in truth.images}
        self._names = FileNames(self._images)

    def __call__(self, row: LabelRow) -> AnnotatedImage | None:
        # the id of a tar's member is uri#member, and both halves may hold another #
        path = row.image_id.removeprefix(f"{row.uri}#")
        # a ground truth need not know the folders of the lake, neither in a store nor inside a tar
        name = self._names.find(path) or self._names.find(f"/{path}") or self._names.find(row.uri)
        return None if name is None else self._images[name]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
