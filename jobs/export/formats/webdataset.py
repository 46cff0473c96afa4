"""WebDataset: tar shards of pictures with their masks, to stream into training.

A sample is `KEY.jpg` (the picture), `KEY.json` (its row; masks as COCO RLE, nothing lost) and `KEY.instances.png` (the
same as one map, the higher score on top). The map is an 8-bit RGB image, since `wds.decode("pil")` turns every image
into one: red + 256 · green is 0 for background, and i + 1 for instance i of the row.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobs.export.formats.base import ArchiveFormat, Picture, compact_json
from jobs.export.formats.png import id_maps, png_bytes, split_bytes
from jobs.table.polygons import float32_json


class WebDataset(ArchiveFormat):
    """Keys are the numbers of the pictures, since a dot in a name would split it; `image_id` stands in the JSON."""

    copies_by_default = True

    def members(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        row = picture.row
        key = f"{picture.number:012d}"
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
        if picture.data is not None:
            yield f"{key}{picture.extension.lower()}", picture.data
        sample = {"image_id": row.image_id, "height": row.height, "width": row.width, "instances": instances}
        yield f"{key}.json", compact_json(sample)
        yield f"{key}.instances.png", png_bytes(split_bytes(id_maps(row)[0]))

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        yield "classes.json", compact_json({str(label): name for label, name in self.facts.classes.items()})
