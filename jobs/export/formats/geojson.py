"""GeoJSON: one FeatureCollection per image, read by QuPath, GDAL and shapely. Polygons keep their holes and parts.

Coordinates are pixels of the image, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import shapely

from jobs.export.formats.base import ExportImage, Format, compact_json
from jobs.table.polygons import float32_json, mask_polygons, plain_numbers, polygon_rings
from jobs.table.read import Instance


class GeoJson(Format):
    """`NAME.geojson` for every image. QuPath shows `classification` and `objectType`."""

    def files(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        row = image.row
        collection = {
            "type": "FeatureCollection",
            "image_id": row.image_id,
            "height": row.height,
            "width": row.width,
            "features": [self._feature(instance) for instance in row.instances],
        }
        yield f"{self.stem(image)}.geojson", compact_json(collection)

    def _feature(self, instance: Instance) -> dict[str, Any]:
        return {
            "type": "Feature",
            "id": instance.index,
            "geometry": _geometry(mask_polygons(instance.rle, self.options.tolerance)),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": instance.category},
                "label": instance.label,
                "score": float32_json(instance.score),
                "area": instance.area,
                "bbox": [float32_json(value) for value in instance.bbox],
            },
        }


def _geometry(parts: list[shapely.Polygon]) -> dict[str, Any]:
    polygons = [[_closed(plain_numbers(ring)) for ring in polygon_rings(part)] for part in parts]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: list[list[float]]) -> list[list[float]]:
    return [*ring, ring[0]]
