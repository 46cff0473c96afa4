"""COCO: one JSON of images, annotations and categories; or the list of results that COCO's evaluation takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jobs.errors import UsageError
from jobs.exports.formats import DocumentFormat, Picture, float32_json
from jobs.exports.polygons import mask_polygons, one_ring, plain_numbers, polygon_rings
from jobs.read_labels import Instance


@dataclass(frozen=True)
class CocoIds:
    """Image and category ids of an existing COCO file, by file name and by class name."""

    images: Mapping[str, int]
    categories: Mapping[str, int]
    source: str

    @classmethod
    def of(cls, document: Any, source: str) -> CocoIds:
        """Raises `UsageError` where the document is not COCO's."""
        try:
            images = {str(image["file_name"]): image["id"] for image in document["images"]}
            categories = {str(category["name"]): category["id"] for category in document["categories"]}
        except (KeyError, TypeError) as error:
            raise UsageError(f"{source} is not a COCO file (no {error}); --ids-from takes one with images") from None
        return cls(images, categories, source)

    def image(self, relative: str) -> int | None:
        """By the path below the lake's root, else by the file's own name."""
        name = relative.replace("#", "/")
        return self.images.get(name, self.images.get(name.rsplit("/", 1)[-1]))

    def category(self, name: str) -> int:
        if name not in self.categories:
            raise UsageError(f"{self.source} has no category {name!r}; its ids do not fit these labels")
        return self.categories[name]


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
        return [{"id": self.category_id(label), "name": name} for label, name in self.facts.classes.items()]

    def category_id(self, label: int) -> int:
        return label + 1 if self.ids is None else self.ids.category(self.facts.classes[label])

    def image_id(self, picture: Picture) -> int | None:
        if self.ids is None:
            return picture.number
        return self.ids.image(self.facts.names.relative(picture.row.image_id))

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

    A mask's score is its rescored one where the model has one, as COCO's mask evaluation wants it.
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
        for unwanted in ("area", "iscrowd"):
            del fields[unwanted]
        if instance.mask_score is not None:
            fields["score"] = float32_json(instance.mask_score)
        return fields


class FiftyOne(Coco):
    """The folder that FiftyOne's COCODetectionDataset imports: `data/` and `labels.json`."""

    copies_by_default = True

    def picture_path(self, picture: Picture) -> str:
        return f"data/{self.facts.names.stem(picture.row.image_id)}{picture.extension}"

    def file_name(self, picture: Picture) -> str:
        if picture.data is not None:
            return self.picture_path(picture).removeprefix("data/")
        return super().file_name(picture)
