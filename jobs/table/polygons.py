"""Masks as polygons, along the outer edges of their pixels, with holes and any number of parts.

Pixel (row, column) is the square from (column, row) to (column + 1, row + 1). So at tolerance 0 the coordinates are
whole numbers, and the filled polygon is the mask again. Above 0 the outline may move by up to that many pixels
(Douglas–Peucker); parts and holes do not merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from pycocotools import mask as coco_mask


def float32_json(value: float) -> float:
    """The shortest decimal that gives the same float32 again: 0.1 and not 0.10000000149011612."""
    return float(str(np.float32(value)))


def mask_polygons(rle: dict[str, Any], tolerance: float = 0.0) -> list[shapely.Polygon]:
    """The parts of a mask as valid polygons, largest first: exteriors counter-clockwise in x, y, holes clockwise.

    `rle` is a COCO RLE, `tolerance` is in pixels. Regions that touch only at a corner are two parts. An empty mask has
    no parts.
    """
    boxes = mask_rectangles(coco_mask.decode(rle))
    if not len(boxes):
        return []
    merged = _simplified(shapely.union_all(shapely.box(*boxes.T)), tolerance)
    parts = [shapely.orient_polygons(part) for part in shapely.get_parts(merged)]
    return sorted(parts, key=lambda part: -part.area)


def _simplified(geometry: shapely.Geometry, tolerance: float) -> shapely.Geometry:
    """Fewer vertices. No old vertex is farther than `tolerance` from the new outline."""
    # tolerance 0 drops only the vertices in the middle of straight edges
    exact = shapely.simplify(geometry, 0)
    if tolerance == 0:
        return exact
    vertices = shapely.points(shapely.get_coordinates(exact))
    simple = shapely.simplify(exact, tolerance, preserve_topology=True)
    if shapely.distance(vertices, shapely.boundary(simple)).max() <= tolerance:
        return simple
    # GEOS drops a ring's first vertex last, which can move the outline by up to the tolerance once more
    return shapely.simplify(exact, tolerance / 2, preserve_topology=True)


def mask_rectangles(mask: np.ndarray) -> np.ndarray:
    """Disjoint rectangles that cover a mask (height, width) exactly: (n, 4) x1, y1, x2, y2 in whole pixels.

    A rectangle is a vertical run of pixels, extended over the next columns for as long as they have the same run.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width), np.int8)
    padded[1:-1] = mask
    edges = np.diff(padded, axis=0).T  # by column, so that starts and ends come in pairs
    columns, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    order = np.lexsort((columns, ends, starts))
    columns, starts, ends = columns[order], starts[order], ends[order]
    same = (np.diff(starts) == 0) & (np.diff(ends) == 0) & (np.diff(columns) == 1)
    first = np.flatnonzero(np.concatenate([[True], ~same])) if len(columns) else np.zeros(0, int)
    last = np.append(first[1:], len(columns)) - 1 if len(columns) else first
    return np.stack([columns[first], starts[first], columns[last] + 1, ends[first]], axis=1)


def polygon_rings(polygon: shapely.Polygon) -> list[np.ndarray]:
    """Exterior and holes as (n, 2) x, y arrays, each without its repeated last point."""
    return [np.asarray(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]


def one_ring(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join rings into one, for formats without holes and parts: (n, 2).

    A straight cut leads to the nearest vertex of each ring, and the same cut leads back. The cut has no area, so that
    filling by the even-odd rule gives the same pixels.
    """
    joined = rings[0]
    for ring in rings[1:]:
        ends = np.asarray(shapely.shortest_line(shapely.MultiPoint(joined), shapely.MultiPoint(ring)).coords)
        here = int(np.flatnonzero((joined == ends[0]).all(axis=1))[0])
        there = int(np.flatnonzero((ring == ends[1]).all(axis=1))[0])
        loop = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], loop, joined[here:]])
    return joined


def plain_numbers(ring: np.ndarray) -> list[list[float]]:
    """Coordinates for JSON: whole numbers as integers, others to a thousandth of a pixel."""
    rounded = np.round(ring, 3)
    if (rounded == np.round(rounded)).all():
        whole: list[list[float]] = rounded.astype(int).tolist()
        return whole
    exact: list[list[float]] = rounded.tolist()
    return exact
