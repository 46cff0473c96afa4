"""What `yolact train --check` prints about a data set: objects, crowds and images by class, and boxes against masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yolact.coco.annotations import AnnotatedImages, Annotation
from yolact.coco.overview import ClassCounts, count_classes, fit_boxes

#: annotations named in one line; the others are counted
_SHOWN = 5


def overview_lines(data: AnnotatedImages, name: str) -> Iterator[str]:
    """The overview of a data set that passed its checks, in lines for the terminal.

    Args:
        data: annotations and images without problems.
        name: of the data set, such as "training set".
    """
    empty = sum(all(annotation.is_crowd for annotation in image.annotations) for image in data.images)
    without = f" ({empty} without objects)" if empty else ""
    yield f"{name}: {len(data.images)} images{without}, {data.num_objects} objects, {data.num_crowds} crowd regions"
    yield from _class_table(count_classes(data))
    yield from missing_class_lines(data, name)
    fit = fit_boxes(data)
    yield f"{fit.objects - len(fit.misfits) - len(fit.empty_masks)} of {fit.objects} boxes fit their masks"
    if fit.misfits:
        yield f"boxes that do not fit: {_named(fit.misfits)}"
    if fit.fit_as_corners > len(fit.misfits) / 2:
        yield (
            f"{fit.fit_as_corners} of these fit when read as x1, y1, x2, y2; COCO wants x, y, width, height: "
            "export the boxes anew"
        )
    if fit.empty_masks:
        yield f"masks without a pixel: {_named(fit.empty_masks)}"


def missing_class_lines(data: AnnotatedImages, name: str) -> Iterator[str]:
    """Classes that have no object in a data set, if there are any."""
    missing = [counts.name for counts in count_classes(data) if not counts.objects]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        yield f"{name}: {len(missing)} of {len(data.categories)} classes have no objects: {shown}"


def _class_table(classes: Sequence[ClassCounts]) -> Iterator[str]:
    width = max(len(counts.name) for counts in classes)
    yield f"  {'class':<{width}}{'objects':>10}{'crowds':>10}{'images':>10}"
    for counts in classes:
        yield f"  {counts.name:<{width}}{counts.objects:>10}{counts.crowds:>10}{counts.images:>10}"


def _named(annotations: Sequence[Annotation]) -> str:
    shown = ", ".join(str(annotation.annotation_id) for annotation in annotations[:_SHOWN])
    more = ", …" if len(annotations) > _SHOWN else ""
    return f"{len(annotations)} (annotations {shown}{more})"
