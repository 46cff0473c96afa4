"""COCO: one JSON with images, annotations and categories; or the list of results that COCO's evaluation reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from jobs.export.formats.base import DocumentFormat, ExportImage
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import ImageFinder
from jobs.table.polygons import float32_json, mask_polygons, one_ring, plain_numbers, polygon_rings
from jobs.table.read import Instance, LabelRow
from yolact.coco.annotations import AnnotatedImages
from yolact.coco.reading import parse_coco


@dataclass(frozen=True)
class CocoIds:
    """Image and category ids of an existing COCO file.

    Images are found by file name, as `yolact evaluate` finds them, and categories by class name.
    """

    images: AnnotatedImages
    source: str

    @classmethod
    def of(cls, document: Any, source: str) -> CocoIds:
        """The ids in a parsed JSON document; its annotations are not read. Raises `UsageError` if it is not COCO's."""
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
    """A COCO instances file, read by pycocotools. Annotations have a `score`; copied images lie in `images/`."""

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

    def image_id(self, image: ExportImage) -> int | str | None:
        return image.number if self.ids is None else self.ids.image(image.row)

    def items(self, image: ExportImage) -> dict[str, list[Any]]:
        image_id = self.image_id(image)
        if image_id is None:
            return {}
        row = image.row
        entry = {
            "id": image_id,
            "file_name": self.file_name(image),
            "height": row.height,
            "width": row.width,
            "coco_url": row.uri,
            "lake_id": row.image_id,
        }
        annotations = [
            {"id": image.first_instance + position, "image_id": image_id, **self.instance_fields(instance)}
            for position, instance in enumerate(row.instances)
        ]
        return {"images": [entry], "annotations": annotations}

    def file_name(self, image: ExportImage) -> str:
        if image.data is not None:
            return self.image_path(image).removeprefix("images/")
        return self.facts.names.relative(image.row.image_id)

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
        """Compressed RLE, or polygons. COCO's polygons have no holes, so a cut joins each hole to the outline."""
        if self.options.segmentation == "rle":
            return {"size": list(instance.rle["size"]), "counts": instance.rle["counts"].decode("ascii")}
        parts = mask_polygons(instance.rle, self.options.tolerance)
        rings = (plain_numbers(one_ring(polygon_rings(part))) for part in parts)
        return [[number for point in ring for number in point] for ring in rings]


class CocoResults(Coco):
    """The list that `COCO.loadRes` reads, to be scored against the ground truth that `--ids-from` names.

    Where the model rescores its masks, the score is the mask's, as COCO's mask evaluation expects. Box evaluation uses
    the tight boxes of the masks, which `loadRes` computes.
    """

    default_name = "results.json"
    sections: ClassVar[tuple[str, ...]] = ("",)

    def head(self) -> dict[str, Any]:
        return {}

    def items(self, image: ExportImage) -> dict[str, list[Any]]:
        image_id = self.image_id(image)
        if image_id is None:
            return {}
        return {"": [{"image_id": image_id, **self.instance_fields(instance)} for instance in image.row.instances]}

    def instance_fields(self, instance: Instance) -> dict[str, Any]:
        fields = super().instance_fields(instance)
        # where an entry has a bbox, loadRes takes its area from the box and not from the mask: AP by size would change
        for unwanted in ("area", "iscrowd", "bbox"):
            del fields[unwanted]
        if instance.mask_score is not None:
            fields["score"] = float32_json(instance.mask_score)
        return fields


class FiftyOne(Coco):
    """The folder that FiftyOne's COCODetectionDataset imports: `data/` and `labels.json`."""

    copies_by_default = True

    def image_path(self, image: ExportImage) -> str:
        return f"data/{self.stem(image)}{image.extension}"

    def file_name(self, image: ExportImage) -> str:
        if image.data is not None:
            return self.image_path(image).removeprefix("data/")
        return super().file_name(image)
