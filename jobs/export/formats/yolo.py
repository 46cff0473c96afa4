"""YOLO segmentation: a text file per picture with a line per instance, and data.yaml; read by Ultralytics.

The format knows one ring per instance, so holes and parts are joined to it by cuts that enclose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from jobs.export.formats.base import Format, Picture
from jobs.export.names import id_hash
from jobs.table.polygons import mask_polygons, one_ring, polygon_rings
from jobs.table.read import Instance


class Yolo(Format):
    """`labels/NAME.txt` beside `images/NAME.jpg`. A picture with nothing on it has an empty file: background."""

    copies_by_default = True

    def files(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        lines = (self._line(instance) for instance in picture.row.instances)
        text = "".join(f"{line}\n" for line in lines if line)
        yield f"labels/{self.stem(picture)}.txt", text.encode()

    def stem(self, picture: Picture) -> str:
        """No folder of it is called `images`: Ultralytics finds a label by replacing the last such folder."""
        path = super().stem(picture)
        folders = ["images_" if folder == "images" else folder for folder in path.split("/")[:-1]]
        renamed = "/".join([*folders, path.rpartition("/")[2]])
        return path if renamed == path else f"{renamed}-{id_hash(picture.row.image_id)}"

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        note = "# train and val are the same pictures: move some away before you trust a validation figure"
        # what json writes as a string is one in YAML too
        names = [f"  {label}: {json.dumps(name)}" for label, name in self.facts.classes.items()]
        yield "data.yaml", "\n".join([note, "train: images", "val: images", "names:", *names, ""]).encode()

    def _line(self, instance: Instance) -> str:
        rings = [ring for part in mask_polygons(instance.rle, self.options.tolerance) for ring in polygon_rings(part)]
        if not rings:
            return ""
        height, width = instance.rle["size"]
        ring = one_ring(rings) / np.array([width, height])
        return f"{instance.label} " + " ".join(f"{number:.6g}" for number in ring.ravel())
