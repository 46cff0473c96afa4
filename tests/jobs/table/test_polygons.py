"""Polygons follow the mask exactly at tolerance 0, whatever the mask, and within the tolerance above it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from support.parity_cases import own_case
from support.shared_data import SHARED

from jobs.table.polygons import mask_polygons, mask_rectangles, one_ring, polygon_rings

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def encode(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def covered_pixels(geometry: shapely.Geometry, height: int, width: int) -> np.ndarray:
    """Pixels whose centre is inside: shapely's own view of a polygon, independent of how it was made."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return shapely.contains_xy(geometry, x, y)


@pytest.mark.compute
@given(masks)
@settings(max_examples=150, deadline=None)
def test_polygons_with_holes_and_parts_are_the_mask(mask):
    parts = mask_polygons(encode(mask))
    assert all(part.is_valid for part in parts)
    assert all((np.round(ring) == ring).all() for part in parts for ring in polygon_rings(part))
    assert sum(part.area for part in parts) == mask.sum()
    assert np.array_equal(covered_pixels(shapely.MultiPolygon(parts), *mask.shape), mask)
    assert all(part.exterior.is_ccw for part in parts)
    assert not any(hole.is_ccw for part in parts for hole in part.interiors)


@pytest.mark.compute
@given(masks)
@settings(max_examples=150, deadline=None)
def test_rings_cut_open_give_the_mask_in_pycocotools(mask):
    height, width = mask.shape
    parts = [polygon_rings(part) for part in mask_polygons(encode(mask))]
    if not parts:
        assert not mask.any()
        return
    for rings in ([one_ring(p) for p in parts], [one_ring([ring for p in parts for ring in p])]):
        flat = [ring.ravel().tolist() for ring in rings]
        back = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
        assert np.array_equal(back.astype(bool), mask)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_rectangles_cover_a_mask_once(mask):
    painted = np.zeros(mask.shape, int)
    for x1, y1, x2, y2 in mask_rectangles(mask):
        painted[y1:y2, x1:x2] += 1
    assert np.array_equal(painted, mask.astype(int))


def test_a_ring_and_a_diagonal_by_hand():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    [polygon] = mask_polygons(encode(ring))
    assert [len(r) for r in polygon_rings(polygon)] == [4, 4]
    assert polygon.bounds == (0, 0, 3, 3)
    assert polygon.interiors[0].bounds == (1, 1, 2, 2)
    assert len(mask_polygons(encode(np.eye(2, dtype=bool)))) == 2
    assert mask_polygons(encode(np.zeros((4, 5), bool))) == []


@pytest.mark.parametrize("tolerance", [1.0, 2.0, 3.5])
def test_a_tolerance_bounds_how_far_the_outline_moves(tolerance):
    y, x = np.mgrid[:80, :100]
    mask = ((y - 40) / 33) ** 2 + ((x - 50) / 44) ** 2 < 1
    mask &= ((y - 40) / 10) ** 2 + ((x - 50) / 14) ** 2 > 1
    [exact], [simple] = mask_polygons(encode(mask)), mask_polygons(encode(mask), tolerance)
    assert simple.is_valid
    assert shapely.get_num_coordinates(simple) < shapely.get_num_coordinates(exact) / 2
    assert shapely.hausdorff_distance(exact.boundary, simple.boundary, densify=0.1) <= tolerance + 1e-9
    assert len(simple.interiors) == 1


def real_masks():
    """COCO masks of the parity photo; where the validation set is beside the checkout, every seventh mask of it too."""
    train = own_case("yolact_resnet50").train
    for counts in train["targets"]["masks_rle_at_input_size"]:
        yield {"size": [550, 550], "counts": counts.encode()}
    larger = SHARED / "data" / "coco" / "instances_val.json"
    if not larger.exists():
        return
    truth = json.loads(larger.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"][::7]:
        rle = coco_mask.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]])
        yield coco_mask.merge(rle) if isinstance(rle, list) else rle


@pytest.mark.compute
def test_real_masks_are_exact():
    for rle in real_masks():
        height, width = rle["size"]
        rings = [one_ring(polygon_rings(part)).ravel().tolist() for part in mask_polygons(rle)]
        back = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
        assert np.array_equal(coco_mask.decode(back), coco_mask.decode(rle))
