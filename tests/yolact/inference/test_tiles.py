"""Detections of tiles become those of the image: duplicates go, cut objects become whole. No network is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from yolact.images.tile_config import TileConfig
from yolact.images.tiles import Window, tile_windows
from yolact.inference.detections import Detections
from yolact.inference.tiles import MergeRules, TileDetections, merge_tiles

HEIGHT, WIDTH = 100, 180
LEFT, RIGHT = Window(0, 0, 100, 100), Window(80, 0, 180, 100)
RULES = MergeRules(tile_size=100, margin=1)


def box(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def disc(x, y, radius, height=HEIGHT, width=WIDTH):
    rows, columns = np.mgrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def found_in(window, objects):
    """What a perfect network finds in a part of the image: of each (mask, score, label) what lies in the part."""
    masks, boxes, scores, labels = [], [], [], []
    for mask, score, label in objects:
        part = mask[window.top : window.bottom, window.left : window.right]
        if not part.any():
            continue
        rows, columns = np.nonzero(part)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        masks.append(coco_mask.encode(np.asfortranarray(part.astype(np.uint8))))
        scores.append(score)
        labels.append(label)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        mask_scores=None,
        labels=np.array(labels, np.int64),
        areas=np.array([coco_mask.area(mask) for mask in masks], np.int64),
        masks=masks,
        height=window.height,
        width=window.width,
    )


def merge(left=(), right=(), whole=None, rules=RULES):
    tiles = [TileDetections(LEFT, found_in(LEFT, left)), TileDetections(RIGHT, found_in(RIGHT, right))]
    coarse = None if whole is None else found_in(Window(0, 0, WIDTH, HEIGHT), whole)
    return merge_tiles(tiles, coarse, HEIGHT, WIDTH, rules)


def masks_of(detections):
    return [detections.mask(index) for index in range(len(detections))]


def assert_masks(detections, expected):
    assert len(detections) == len(expected)
    for found, mask in zip(masks_of(detections), expected, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_an_object_of_one_tile_moves_to_its_place():
    mask = box(120, 20, 140, 50)
    merged = merge(right=[(mask, 0.8, 2)])
    assert_masks(merged, [mask])
    assert merged.boxes.tolist() == [[120, 20, 140, 50]]
    assert merged.areas.tolist() == [600]
    assert merged.labels.tolist() == [2]
    assert merged.scores.tolist() == [np.float32(0.8)]
    assert (merged.height, merged.width) == (HEIGHT, WIDTH)
    assert merged.masks[0]["size"] == [HEIGHT, WIDTH]


def test_an_object_that_two_tiles_see_whole_counts_once_with_the_better_score():
    mask, wider = box(84, 20, 96, 50), box(84, 19, 96, 51)
    merged = merge([(mask, 0.6, 0)], [(wider, 0.9, 0)])
    assert_masks(merged, [wider])
    assert merged.scores.tolist() == [np.float32(0.9)]


def test_duplicates_are_judged_within_a_class():
    mask = box(84, 20, 96, 50)
    assert merge([(mask, 0.6, 0)], [(mask, 0.9, 1)]).labels.tolist() == [1, 0]


def test_boxes_alone_do_not_make_duplicates():
    stair = np.tril(box(84, 20, 96, 32)[20:32, 84:96])
    lower, upper = box(0, 0, 0, 0), box(0, 0, 0, 0)
    lower[20:32, 84:96], upper[20:32, 84:96] = stair, ~stair
    assert len(merge([(lower, 0.6, 0)], [(upper, 0.9, 0)])) == 2


def test_a_cut_detection_yields_to_the_whole_one_of_the_neighbour_even_with_a_better_score():
    mask = box(90, 20, 112, 50)
    merged = merge([(mask, 0.99, 0)], [(mask, 0.4, 0)])
    assert_masks(merged, [mask])
    assert merged.scores.tolist() == [np.float32(0.4)]


def test_a_piece_that_ends_before_the_edge_yields_to_the_larger_whole_one():
    piece, mask = box(84, 20, 96, 50), box(84, 20, 120, 50)
    assert_masks(merge([(piece, 0.99, 0)], [(mask, 0.4, 0)]), [mask])


def test_pieces_of_an_object_larger_than_the_overlap_are_joined():
    mask = disc(90, 50, 30)
    merged = merge([(mask, 0.7, 1)], [(mask, 0.8, 1)])
    assert_masks(merged, [mask])
    assert merged.boxes.tolist() == [[60, 20, 121, 81]]
    assert merged.scores.tolist() == [np.float32(0.8)]


def test_cut_detections_that_do_not_continue_each_other_stay_apart():
    upper, lower = box(60, 10, 120, 30), box(60, 25, 120, 60)
    assert len(merge([(upper, 0.7, 0)], [(lower, 0.8, 0)])) == 2


def test_neighbouring_objects_across_a_seam_are_not_joined():
    left, right = box(60, 20, 90, 60), box(90, 20, 130, 60)
    assert_masks(merge([(left, 0.9, 0), (right, 0.3, 0)], [(left, 0.4, 0), (right, 0.8, 0)]), [left, right])


def test_a_piece_without_a_continuation_stays():
    mask = box(60, 20, 120, 60)
    assert_masks(merge([(mask, 0.7, 0)]), [box(60, 20, 100, 60)])


def test_an_object_larger_than_a_tile_comes_from_the_whole_image():
    mask = box(20, 20, 160, 60)
    rough = box(18, 20, 162, 60)
    merged = merge([(mask, 0.9, 0)], [(mask, 0.9, 0)], whole=[(rough, 0.5, 0)])
    assert_masks(merged, [rough])


def test_an_object_that_fits_into_a_tile_comes_from_the_tile():
    mask, rough = box(10, 20, 50, 60), box(12, 20, 52, 60)
    assert_masks(merge([(mask, 0.3, 0)], whole=[(rough, 0.9, 0)]), [mask])


def test_a_joined_object_comes_before_the_whole_image():
    mask, rough = disc(90, 50, 30), disc(91, 50, 30)
    assert_masks(merge([(mask, 0.3, 0)], [(mask, 0.3, 0)], whole=[(rough, 0.9, 0)]), [mask])


def test_what_only_the_whole_image_shows_stays():
    small, large = box(10, 20, 50, 60), box(20, 70, 170, 90)
    assert_masks(merge(whole=[(small, 0.9, 0), (large, 0.5, 0)]), [small, large])


def test_one_detection_of_the_whole_image_over_many_objects_goes():
    objects = [box(x, 10, x + 16, 90) for x in (4, 24, 44, 110, 130, 150)]
    blob = box(4, 10, 170, 90)
    scored = [(mask, 0.9 - index / 100, 0) for index, mask in enumerate(objects)]
    assert_masks(merge(scored[:3], scored[3:], whole=[(blob, 0.5, 0)]), objects)


def test_a_large_object_is_not_lost_to_a_small_detection_inside_it():
    large, part = box(20, 20, 160, 60), box(30, 30, 40, 40)
    assert_masks(merge([(part, 0.9, 0)], whole=[(large, 0.5, 0)]), [part, large])
    assert_masks(merge([(part, 0.3, 0)], whole=[(large, 0.5, 0)]), [large])


def test_detections_of_one_tile_are_not_compared():
    outer, inner = box(10, 10, 60, 60), box(20, 20, 40, 40)
    assert len(merge([(outer, 0.9, 0), (inner, 0.8, 0)])) == 2


def test_the_limit_keeps_the_best():
    objects = [(box(4 + 20 * i, 10, 16 + 20 * i, 30), 0.5 + i / 100, 0) for i in range(4)]
    merged = merge(objects, rules=replace(RULES, limit=2))
    assert merged.scores.tolist() == [np.float32(0.53), np.float32(0.52)]


def test_nothing_found_gives_empty_arrays():
    merged = merge(whole=[])
    assert len(merged) == 0
    assert merged.boxes.shape == (0, 4)
    assert merged.masks == []
    assert (merged.boxes.dtype, merged.scores.dtype, merged.labels.dtype) == (np.float32, np.float32, np.int64)


def test_detections_without_mask_pixels_are_left_out():
    empty = found_in(LEFT, [(box(10, 10, 20, 20), 0.9, 0)])
    empty = replace(empty, masks=[coco_mask.encode(np.zeros((100, 100), np.uint8, order="F"))])
    assert len(merge_tiles([TileDetections(LEFT, empty)], None, HEIGHT, WIDTH, RULES)) == 0


def test_mask_scores_come_along():
    mask = disc(90, 50, 30)
    tiles = [
        TileDetections(window, replace(found_in(window, [(mask, 0.7, 0)]), mask_scores=np.array([score], np.float32)))
        for window, score in ((LEFT, 0.5), (RIGHT, 0.6))
    ]
    assert merge_tiles(tiles, None, HEIGHT, WIDTH, RULES).mask_scores.tolist() == [np.float32(0.6)]


# ---- whole images of many objects, which a perfect network finds in every tile


def many_discs(seed, height, width, largest, count):
    """Discs that do not touch each other, as (mask, score, label)."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((height, width), bool)
    objects = []
    for _ in range(count):
        radius = int(rng.integers(3, largest))
        x, y = rng.integers(0, width), rng.integers(0, height)
        if not (taken & disc(x, y, radius + 2, height, width)).any():
            mask = disc(x, y, radius, height, width)
            taken |= mask
            objects.append((mask, float(rng.uniform(0.2, 1)), int(rng.integers(0, 2))))
    return objects


@pytest.mark.compute
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("overlap", [0.2, 0.35])
def test_every_object_of_an_image_comes_out_once_and_whole(seed, overlap):
    height, width = 250, 330
    objects = many_discs(seed, height, width, largest=24, count=150)
    tile = TileConfig(100, overlap)
    tiles = [TileDetections(window, found_in(window, objects)) for window in tile_windows(height, width, tile)]
    merged = merge_tiles(tiles, None, height, width, RULES)
    expected = {coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"]: label for m, _, label in objects}
    assert len(merged) == len(objects) > 40
    assert {mask["counts"]: label for mask, label in zip(merged.masks, merged.labels, strict=True)} == expected


def noisy_tiles(seed):
    """Tiles whose network is not perfect: it misses objects, finds the same one differently, and finds blobs."""
    height, width = 250, 330
    rng = np.random.default_rng(seed)
    objects = many_discs(seed, height, width, largest=40, count=150)
    tiles = []
    for window in tile_windows(height, width, TileConfig(100, 0.3)):
        seen = [
            (np.roll(mask, rng.integers(-3, 4, 2), (0, 1)), rng.choice([0.3, 0.5, rng.uniform()]), label)
            for mask, _, label in objects
            if rng.random() < 0.8
        ]
        tiles.append(TileDetections(window, found_in(window, seen)))
    coarse = found_in(Window(0, 0, width, height), [(mask, rng.uniform(), label) for mask, _, label in objects[::3]])
    return tiles, coarse, height, width


@pytest.mark.compute
@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_tiles_changes_nothing(seed):
    tiles, coarse, height, width = noisy_tiles(seed)
    expected = merge_tiles(tiles, coarse, height, width, RULES)
    for order in (tiles[::-1], [tiles[i] for i in np.random.default_rng(seed).permutation(len(tiles))]):
        merged = merge_tiles(order, coarse, height, width, RULES)
        assert merged.masks == expected.masks
        for name in ("boxes", "scores", "labels", "areas"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name))


@pytest.mark.compute
@pytest.mark.parametrize("seed", range(6))
def test_no_two_whole_detections_of_tiles_hold_most_of_each_other(seed):
    tiles, _, height, width = noisy_tiles(seed)
    merged = merge_tiles(tiles, None, height, width, RULES)
    masks = masks_of(merged)
    for one in range(len(merged)):
        for other in range(one):
            if merged.labels[one] == merged.labels[other]:
                common, union = (masks[one] & masks[other]).sum(), (masks[one] | masks[other]).sum()
                assert common <= 0.5 * union
