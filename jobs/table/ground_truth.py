"""Which rows of a label table belong to which images of a ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.table.read import LabelRow
from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, parse_coco
from yolact.coco.evaluation import CocoScores, DetectedInstance

NAMES_SHOWN = 5


@dataclass
class MatchCounts:
    """What was compared, and what was not and why."""

    ground_truth_images: int = 0
    labelled: int = 0
    """ground-truth images with a row of status ok"""
    missing: list[str] = field(default_factory=list)
    """ground-truth images without a row: they count as images without detections"""
    failed: dict[str, int] = field(default_factory=dict)
    """ground-truth images whose row has another status than ok, by status: likewise"""
    other_size: list[str] = field(default_factory=list)
    """images with another size in the table: likewise, masks of other sizes cannot be compared"""
    unknown_images: int = 0
    """rows of images that the ground truth does not have: left out"""
    unknown_categories: dict[str, int] = field(default_factory=dict)
    """instances of categories that the ground truth does not have: left out"""

    def lines(self) -> Iterator[str]:
        """For people; only what is not zero beyond the first line."""
        yield f"{self.labelled} of {self.ground_truth_images} ground-truth images are labelled"
        if self.missing:
            yield f"{len(self.missing)} are missing from the labels and count as empty: {_some(self.missing)}"
        for status, count in sorted(self.failed.items()):
            yield f"{count} have status {status!r} in the labels and count as empty"
        if self.other_size:
            yield f"{len(self.other_size)} have another size in the labels and count as empty: {_some(self.other_size)}"
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
        truth: whose file names may have folders; a row matches by its whole path or, if that is unambiguous, by its
            last part.

    Raises:
        UsageError: if two rows claim the same image.
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
    """Finds the ground-truth image of a label row."""

    def __init__(self, truth: AnnotatedImages) -> None:
        self._by_path = {image.file_name.strip("/"): image for image in truth.images}
        names = Counter(_last_part(image.file_name) for image in truth.images)
        self._by_name = {
            _last_part(image.file_name): image for image in truth.images if names[_last_part(image.file_name)] == 1
        }

    def __call__(self, row: LabelRow) -> AnnotatedImage | None:
        path = row.image_id.rpartition("#")[2].strip("/")
        while path:  # the ground truth's names are relative to a folder that it does not tell
            if path in self._by_path:
                return self._by_path[path]
            path = path.partition("/")[2]
        name = _last_part(row.image_id.rpartition("#")[2])
        return self._by_name.get(name) or self._by_name.get(_last_part(row.uri))


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")


def read_coco(uri: str) -> AnnotatedImages:
    """COCO instances JSON at a URI. Raises `UsageError` for anything else."""
    try:
        return parse_coco(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except storage.ObjectMissingError:
        raise UsageError(f"there is no annotation file {uri}") from None


#: label, field; the second half of COCO's summary is recall
_ROWS = (
    ("AP 0.50:0.95", "ap"),
    ("AP 0.50", "ap50"),
    ("AP 0.75", "ap75"),
    ("AP small", "ap_small"),
    ("AP medium", "ap_medium"),
    ("AP large", "ap_large"),
    ("AR at 1", "ar_1"),
    ("AR at 10", "ar_10"),
    ("AR at {limit}", "ar_max"),
    ("AR small", "ar_small"),
    ("AR medium", "ar_medium"),
    ("AR large", "ar_large"),
)


def score_lines(scores: dict[str, CocoScores], per_class: bool = False) -> Iterator[str]:
    """A table with a column per kind of overlap; "—" where the ground truth has nothing of that size."""
    limit = next(iter(scores.values())).max_detections
    yield ""
    yield _line(f"at most {limit} detections", list(scores))
    for label, name in _ROWS:
        yield _line(label.format(limit=limit), [_percent(getattr(result, name)) for result in scores.values()])
    for iou in next(iter(scores.values())).ap_by_iou:
        yield _line(f"AP at IoU {iou}", [_percent(result.ap_by_iou[iou]) for result in scores.values()])
    if per_class:
        for category in next(iter(scores.values())).ap_by_class:
            yield _line(category, [_percent(result.ap_by_class[category]) for result in scores.values()])


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<24}" + "".join(f"{cell:>10}" for cell in cells)


def _percent(value: float) -> str:
    return "—" if value < 0 else f"{100 * value:.2f}"
