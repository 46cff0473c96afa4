"""Label Studio: one task per image, with the labels as a pre-annotation for people to correct.

`--segmentation rle` gives brush masks (exact); `polygons` gives polygons, which are easier to edit.

Label Studio loads an image from its address. Addresses in an object store or on the web stay as they are (the project
needs that store as cloud storage). Label Studio cannot open a local file by its path, a member of a tar shard or a row
of Parquet. The export copies these into the output, and gives them addresses of Label Studio's local files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from jobs.export.formats.base import DocumentFormat, ExportImage
from jobs.storage import is_local
from jobs.table.polygons import float32_json, mask_polygons, one_ring, polygon_rings
from jobs.table.read import Instance, LabelRow

_FROM, _TO = "label", "image"
_STORES = ("s3://", "gs://", "azure-blob://")
#: the start of addresses below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, which the user sets to the output's folder
LOCAL_FILES = "/data/local-files/?d="


class LabelStudio(DocumentFormat):
    """`tasks.json` to import, and `label_config.xml` for the project's labelling interface."""

    default_name = "tasks.json"
    copies_by_default = None

    def copies(self, row: LabelRow) -> bool:
        """By default, whether Label Studio cannot reach the image. With `--image-prefix` it can reach all of them."""
        if self.options.copy_images is not None:
            return self.options.copy_images
        return self.options.image_prefix is None and (row.image_id != row.uri or is_local(row.uri))

    def image_address(self, image: ExportImage) -> str:
        """The address for Label Studio: of the copy, below `--image-prefix`, or the image's own."""
        row, prefix = image.row, self.options.image_prefix
        if image.data is not None:
            path = self.image_path(image)
            prefix = prefix or self.options.copied_prefix or LOCAL_FILES
        elif prefix is not None:
            path = self.facts.names.relative(row.image_id)
        else:
            return row.uri
        # Label Studio takes keys of an object store as they are written, and decodes the paths of other addresses
        return prefix + (path if prefix.startswith(_STORES) else quote(path))

    def items(self, image: ExportImage) -> dict[str, list[Any]]:
        row = image.row
        scores = [instance.score for instance in row.instances]
        prediction = {
            "model_version": self.model,
            "score": float32_json(min(scores)) if scores else 0.0,
            "result": [self._region(instance) for instance in row.instances],
        }
        data = {"image": self.image_address(image), "image_id": row.image_id}
        return {"": [{"id": image.number, "data": data, "predictions": [prediction]}]}

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        tag = "BrushLabels" if self.options.segmentation == "rle" else "PolygonLabels"
        labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in self.facts.classes.values())
        view = (
            f'<View>\n  <Image name="{_TO}" value="$image" zoom="true"/>\n'
            f'  <{tag} name="{_FROM}" toName="{_TO}">\n{labels}\n  </{tag}>\n</View>\n'
        )
        yield "label_config.xml", view.encode()

    def _region(self, instance: Instance) -> dict[str, Any]:
        height, width = instance.rle["size"]
        kind, value = self._shape(instance)
        return {
            "id": f"i{instance.index}",
            "from_name": _FROM,
            "to_name": _TO,
            "type": kind,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": float32_json(instance.score),
            "value": {**value, kind: [instance.category]},
        }

    def _shape(self, instance: Instance) -> tuple[str, dict[str, Any]]:
        if self.options.segmentation == "rle":
            return "brushlabels", {"format": "rle", "rle": encode_brush(instance.mask())}
        height, width = instance.rle["size"]
        rings = [ring for part in mask_polygons(instance.rle, self.options.tolerance) for ring in polygon_rings(part)]
        percent = np.round(one_ring(rings) * 100 / np.array([width, height]), 5) if rings else np.zeros((0, 2))
        return "polygonlabels", {"points": percent.tolist(), "closed": True}


_SIZES = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _SIZES[-1]
_CHANNELS = 4


def encode_brush(mask: np.ndarray) -> list[int]:
    """The `rle` of a region for a bool mask (height, width): a list of byte values, in Label Studio's own code."""
    values = mask.astype(np.int8).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    lengths = np.diff(np.append(starts, len(values))) * _CHANNELS
    bits = [f"{len(values) * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _runs(length, 255 if values[start] else 0)
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def _runs(length: int, value: int) -> Iterator[str]:
    while length:
        run = min(length, _LONGEST_RUN)
        choice = next(i for i, size in enumerate(_SIZES) if run <= 1 << size)
        yield f"1{choice:02b}{run - 1:0{_SIZES[choice]}b}{value:08b}"
        length -= run
