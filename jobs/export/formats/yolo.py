"""YOLO segmentation, read by Ultralytics: one text file per image with one line per instance, and data.yaml.

The format has one ring per instance, so cuts without area join holes and parts to the outline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from jobs.export.formats.base import ExportImage, Format
from jobs.export.names import id_hash
from jobs.table.polygons import mask_polygons, one_ring, polygon_rings
from jobs.table.read import Instance


class Yolo(Format):
    """`labels/NAME.txt` beside `images/NAME.jpg`. An image without instances has an empty file: background."""

    copies_by_default = True

    def files(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        lines = (self._line(instance) for instance in image.row.instances)
        text = "".join(f"{line}\n" for line in lines if line)
        yield f"labels/{self.stem(image)}.txt", text.encode()

    def stem(self, image: ExportImage) -> str:
        """No folder of it is called `images`: Ultralytics replaces the last such folder to find labels."""
        path = super().stem(image)
        folders = ["images_" if folder == "images" else folder for folder in path.split("/")[:-1]]
        renamed = "/".join([*folders, path.rpartition("/")[2]])
        return path if renamed == path else f"{renamed}-{id_hash(image.row.image_id)}"

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        note = "# train and val are the same images: move some to a folder of their own before you trust a validation"
        # a JSON string is also a YAML string
        names = [f"  {label}: {json.dumps(name)}" for label, name in self.facts.classes.items()]
        yield "data.yaml", "\n".join([note, "train: images", "val: images", "names:", *names, ""]).encode()

    def _line(self, instance: Instance) -> str:
        rings = [ring for part in mask_polygons(instance.rle, self.options.tolerance) for ring in polygon_rings(part)]
        if not rings:
            return ""
        height, width = instance.rle["size"]
        ring = one_ring(rings) / np.array([width, height])
        return f"{instance.label} " + " ".join(f"{number:.6g}" for number in ring.ravel())
