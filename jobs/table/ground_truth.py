"""Annotation files as every command opens them, and which rows of a label table belong to which of their images."""

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
#: problems told one by one; the others are counted
PROBLEMS_SHOWN = 20


def read_coco(uri: str) -> AnnotatedImages:
    """COCO instances JSON at a URI, its annotations not yet checked. Raises `UsageError` for anything else."""
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
    """COCO instances JSON whose every annotation is a mask in its image.

    Args:
        uri: of the JSON.
        name: of the data set, for messages.
        skip_broken: leave out what is broken, and say so, instead of raising.

    Raises:
        UsageError: if there is no such file, if it is not COCO's, or if anything in it is broken.
    """
    data = read_coco(uri)
    tell_notes(data, name)
    return settle_problems(data, find_problems(data), name, skip_broken=skip_broken)


def tell_notes(data: AnnotatedImages, name: str) -> None:
    """Print what reading mended or passed over, on stderr."""
    for note in data.notes:
        print(f"{name}: {note}", file=sys.stderr)


def settle_problems(
    data: AnnotatedImages, problems: Sequence[AnnotationProblem], name: str, *, skip_broken: bool
) -> AnnotatedImages:
    """Print the problems of a data set on stderr, and either leave out what they name or raise `UsageError`."""
    for line in problem_lines(problems):
        print(f"{name}: {line}", file=sys.stderr)
    if problems and not skip_broken:
        raise UsageError(
            f"{name} has {len(problems)} broken annotations or images, such as: {problems[0]}; "
            "correct them, or leave them out with --skip-broken"
        )
    return without_problems(data, problems) if problems else data


def problem_lines(problems: Sequence[AnnotationProblem]) -> Iterator[str]:
    """Problems as lines for people; those beyond the first twenty are counted by their kind."""
    yield from map(str, problems[:PROBLEMS_SHOWN])
    others = Counter(problem.kind for problem in problems[PROBLEMS_SHOWN:])
    if others:
        kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common())
        yield f"and {others.total()} more ({kinds})"


@dataclass
class MatchCounts:
    """What was compared, and what was not and why."""

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
        """For people: the first line always, the others only where they count something."""
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
    """Detections in the ground truth's terms."""

    detections: list[DetectedInstance]
    counts: MatchCounts


def match_labels(rows: Iterable[LabelRow], truth: AnnotatedImages) -> MatchedLabels:
    """Put the rows of a label table beside the images of a ground truth, by file name and category name.

    Args:
        rows: of the table.
        truth: its images, which `ImageFinder` finds.

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
        # a member of a tar is named uri#member, and either may hold a # of its own
        path = row.image_id.removeprefix(f"{row.uri}#")
        # the folders of a lake are nothing that a ground truth must know, whether in a store or inside of a tar
        name = self._names.find(path) or self._names.find(f"/{path}") or self._names.find(row.uri)
        return None if name is None else self._images[name]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
