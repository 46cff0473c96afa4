"""COCO: one JSON of images, annotations and categories; or the list of results that COCO's evaluation takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from jobs.export.formats.base import DocumentFormat, Picture
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import ImageFinder
from jobs.table.polygons import float32_json, mask_polygons, one_ring, plain_numbers, polygon_rings
from jobs.table.read import Instance, LabelRow
from yolact.coco.annotations import AnnotatedImages
from yolact.coco.reading import parse_coco


@dataclass(frozen=True)
class CocoIds:
    """Image and category ids of an existing COCO file, found by file name as `yolact evaluate` does, and class name."""

    images: AnnotatedImages
    source: str

    @classmethod
    def of(cls, document: Any, source: str) -> CocoIds:
        """Annotations are not looked at. Raises `UsageError` where the document is not COCO's."""
        try:
            return cls(parse_coco({**document, "annotations": []}, source), source)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--ids-from: {error}") from None

    @cached_property
    def _find(self) -> ImageFinder:
        return ImageFinder(self.images)

    @cached_property
    def _categories(self) -> dict[str, int]:
        return {name: category_id for category_id, name in self.images.categories.items()}

    def image(self, row: LabelRow) -> int | str | None:
        found = self._find(row)
        return None if found is None else found.image_id

    def category(self, name: str) -> int:
        if name not in self._categories:
            raise UsageError(f"{self.source} has no category {name!r}; its ids do not fit these labels")
        return self._categories[name]


@dataclass(frozen=True)
class Coco(DocumentFormat):
    """Read by pycocotools. Scores stand in each annotation as `score`; a copied picture under `images/`."""

    ids: CocoIds | None = None

    default_name = "labels.json"
    sections: ClassVar[tuple[str, ...]] = ("images", "annotations")

    def head(self) -> dict[str, Any]:
        info = {"description": f"instance masks by {self.model}", "images_root": self.facts.names.root}
        return {"info": info, "licenses": [], "categories": self.categories()}

    def categories(self) -> list[dict[str, Any]]:
        """The table's classes; with `--ids-from`, the categories of that file."""
        if self.ids is not None:
            return [{"id": category_id, "name": name} for category_id, name in self.ids.images.categories.items()]
        return [{"id": self.category_id(label), "name": name} for label, name in self.facts.classes.items()]

    def category_id(self, label: int) -> int:
        return label + 1 if self.ids is None else self.ids.category(self.facts.classes[label])

    def image_id(self, picture: Picture) -> int | str | None:
        return picture.number if self.ids is None else self.ids.image(picture.row)

    def items(self, picture: Picture) -> dict[str, list[Any]]:
        image_id = self.image_id(picture)
        if image_id is None:
            return {}
        row = picture.row
        image = {
            "id": image_id,
            "file_name": self.file_name(picture),
            "height": row.height,
            "width": row.width,
            "coco_url": row.uri,
            "lake_id": row.image_id,
        }
        annotations = [
            {"id": picture.first_instance + position, "image_id": image_id, **self.instance_fields(instance)}
            for position, instance in enumerate(row.instances)
        ]
        return {"images": [image], "annotations": annotations}

    def file_name(self, picture: Picture) -> str:
        if picture.data is not None:
            return self.picture_path(picture).removeprefix("images/")
        return self.facts.names.relative(picture.row.image_id)

    def instance_fields(self, instance: Instance) -> dict[str, Any]:
        return {
            "category_id": self.category_id(instance.label),
            "segmentation": self.segmentation(instance),
            "bbox": [float32_json(value) for value in instance.bbox],
            "area": instance.area,
            "iscrowd": 0,
            "score": float32_json(instance.score),
        }

    def segmentation(self, instance: Instance) -> Any:
        """Compressed RLE, or polygons. COCO's polygons know no holes: a hole is cut open to its outline."""
        if self.options.segmentation == "rle":
            return {"size": list(instance.rle["size"]), "counts": instance.rle["counts"].decode("ascii")}
        parts = mask_polygons(instance.rle, self.options.tolerance)
        rings = (plain_numbers(one_ring(polygon_rings(part))) for part in parts)
        return [[number for point in ring for number in point] for ring in rings]


class CocoResults(Coco):
    """The list that `COCO.loadRes` takes, to be scored against a ground truth whose ids `--ids-from` gives.

    A mask's score is its rescored one where the model has one, as COCO's mask evaluation wants it. Box evaluation takes
    the tight boxes of the masks: `loadRes` makes them.
    """

    default_name = "results.json"
    sections: ClassVar[tuple[str, ...]] = ("",)
    takes_pictures = False

    def head(self) -> dict[str, Any]:
        return {}

    def items(self, picture: Picture) -> dict[str, list[Any]]:
        image_id = self.image_id(picture)
        if image_id is None:
            return {}
        return {"": [{"image_id": image_id, **self.instance_fields(instance)} for instance in picture.row.instances]}

    def instance_fields(self, instance: Instance) -> dict[str, Any]:
        fields = super().instance_fields(instance)
        # with a bbox beside it, loadRes would take areas, and so AP by size, from boxes instead of masks
        for unwanted in ("area", "iscrowd", "bbox"):
            del fields[unwanted]
        if instance.mask_score is not None:
            fields["score"] = float32_json(instance.mask_score)
        return fields


class FiftyOne(Coco):
    """The folder that FiftyOne's COCODetectionDataset imports: `data/` and `labels.json`."""

    copies_by_default = True

    def picture_path(self, picture: Picture) -> str:
        return f"data/{self.stem(picture)}{picture.extension}"

    def file_name(self, picture: Picture) -> str:
        if picture.data is not None:
            return self.picture_path(picture).removeprefix("data/")
        return super().file_name(picture)
