"""WebDataset: tar shards of images with their masks, to stream into training.

A sample is `KEY.jpg` (the image), `KEY.json` (its row, with exact masks as COCO RLE) and `KEY.instances.png` (all masks
in one map, the higher score on top). The map is an 8-bit RGB image, since `wds.decode("pil")` turns every image into
one: red + 256 · green is 0 for background, and i + 1 for instance i of the row.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobs.export.formats.base import ArchiveFormat, ExportImage, compact_json
from jobs.export.formats.png import id_maps, png_bytes, split_bytes
from jobs.table.polygons import float32_json


class WebDataset(ArchiveFormat):
    """Keys are the numbers of the images, because a dot in a key would split it. The JSON has the `image_id`."""

    copies_by_default = True

    def members(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        row = image.row
        key = f"{image.number:012d}"
        instances = [
            {
                "index": instance.index,
                "label": instance.label,
                "category": instance.category,
                "score": float32_json(instance.score),
                "bbox": [float32_json(value) for value in instance.bbox],
                "area": instance.area,
                "mask": {"size": list(instance.rle["size"]), "counts": instance.rle["counts"].decode("ascii")},
            }
            for instance in row.instances
        ]
        if image.data is not None:
            yield f"{key}{image.extension.lower()}", image.data
        sample = {"image_id": row.image_id, "height": row.height, "width": row.width, "instances": instances}
        yield f"{key}.json", compact_json(sample)
        yield f"{key}.instances.png", png_bytes(split_bytes(id_maps(row)[0]))

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        yield "classes.json", compact_json({str(label): name for label, name in self.facts.classes.items()})
