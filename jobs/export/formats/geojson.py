"""GeoJSON: a FeatureCollection per picture, polygons with true holes and parts; read by QuPath, GDAL, shapely.

Coordinates are pixels of the picture, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import shapely

from jobs.export.formats.base import Format, Picture, compact_json
from jobs.table.polygons import float32_json, mask_polygons, plain_numbers, polygon_rings
from jobs.table.read import Instance


class GeoJson(Format):
    """`NAME.geojson` for every picture. `classification` and `objectType` are what QuPath shows."""

    takes_pictures = False

    def files(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        row = picture.row
        collection = {
            "type": "FeatureCollection",
            "image_id": row.image_id,
            "height": row.height,
            "width": row.width,
            "features": [self._feature(instance) for instance in row.instances],
        }
        yield f"{self.stem(picture)}.geojson", compact_json(collection)

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
