"""A label table as training data: what one model found becomes what another learns."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.errors import UsageError
from jobs.pictures import PictureSource
from jobs.read_labels import LabelRow, open_labels
from yolact.coco import AnnotatedImage, AnnotatedImages, Annotation


@dataclass(frozen=True)
class LabelledPictures:
    """Reads the pictures of a label table from where they were labelled, by their image ids."""

    source: PictureSource
    places: dict[str, tuple[str, str]]
    """image id → (file of the table that has its row, URI of the object that holds the picture)"""

    def __call__(self, image_id: str) -> bytes:
        part, uri = self.places[image_id]
        (data,) = self.source.fetch(part, [(image_id, uri)])
        if not isinstance(data, bytes):
            raise ValueError(f"{image_id} is no longer to be had: {data}")
        return data


def read_label_annotations(labels: str, score_threshold: float) -> tuple[AnnotatedImages, LabelledPictures]:
    """The images of a label table with their instances of at least a score; images that failed are left out.

    Args:
        labels: OUTPUT of `yolact label`, its `labels/` folder or one file.
        score_threshold: least score of an instance, 0–1.

    Returns:
        The data set, with image ids as file names, and what reads its pictures.

    Raises:
        UsageError: if the table names no classes.
    """
    table = open_labels(labels)
    names: dict[int, str] = dict(enumerate((table.run or {}).get("class_names", ())))
    images, places = [], {}
    for share in table.shares():
        part = share.uri.rpartition("/")[2]
        for row in share.images():
            if not row.ok or row.height is None or row.width is None:
                continue
            names.update({i.label: i.category for i in row.instances if i.label not in names})
            places[row.image_id] = (part, row.uri)
            annotations = _annotations(row, score_threshold)
            images.append(AnnotatedImage(row.image_id, row.image_id, row.height, row.width, annotations))
    if not names:
        raise UsageError(f"{labels} has no instances and its run names no classes: there is nothing to learn from")
    # labels are positions: a class that was never found keeps its place
    categories = {label: names.get(label, f"class {label}") for label in range(max(names) + 1)}
    return AnnotatedImages(tuple(images), categories), LabelledPictures(PictureSource(table.output), places)


def _annotations(row: LabelRow, score_threshold: float) -> tuple[Annotation, ...]:
    return tuple(
        Annotation(f"{row.image_id}:{instance.index}", instance.label, instance.bbox, instance.rle)
        for instance in row.instances
        if instance.score >= score_threshold and instance.area > 0 and min(instance.bbox[2:]) > 0
    )
