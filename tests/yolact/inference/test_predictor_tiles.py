"""`Predictor` with tiles: the same as the network on each part, whatever shares a batch with it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from support.models import tiny_config

from yolact import Predictor, TileConfig, build_yolact
from yolact.geometry.mask_runs import encode_runs, place_masks

pytestmark = pytest.mark.compute

SIZE = 96
#: without an overlap and without the whole image, the tiles of a mosaic are its images
MOSAIC = TileConfig(SIZE, overlap=0, whole_image=False)


@pytest.fixture(scope="module")
def model():
    """Random weights that find something everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_yolact(tiny_config())
        for parameter in model.head.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def predictor(model, tile, **options):
    return Predictor(model, device="cpu", engine="eager", max_detections=10, tile=tile, **options)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def instances(detections, left=0, top=0, height=None, width=None):
    """(label, box, score, mask) of each detection with mask pixels, moved into a larger image, in a fixed order."""
    height, width = height or detections.height, width or detections.width
    places = np.full(len(detections), left), np.full(len(detections), top)
    masks, areas = encode_runs(place_masks(detections.masks, *places, height), width)
    return sorted(
        (int(label), (box + np.float32([left, top, left, top])).tolist(), float(score), mask["counts"])
        for label, box, score, mask, area in zip(
            detections.labels, detections.boxes, detections.scores, masks, areas, strict=True
        )
        if area
    )


def test_an_image_no_larger_than_a_tile_has_the_same_bits_as_without_tiles(model):
    images = [noise(60, 96), noise(96, 96), noise(7, 20)]
    for tiled, plain in zip(predictor(model, TileConfig(SIZE))(images), predictor(model, None)(images), strict=True):
        assert tiled.masks == plain.masks
        for name in ("boxes", "scores", "labels", "areas"):
            np.testing.assert_array_equal(getattr(tiled, name), getattr(plain, name))


def test_a_mosaic_of_four_images_has_the_instances_of_all_four(model):
    parts = [noise(SIZE, SIZE, seed) for seed in range(4)]
    mosaic = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
    predict = predictor(model, MOSAIC)
    (whole,) = predict([mosaic])
    expected = []
    for index, found in enumerate(predict(parts)):
        row, column = divmod(index, 2)
        expected += instances(found, SIZE * column, SIZE * row, 2 * SIZE, 2 * SIZE)
    assert len(expected) > 20
    assert instances(whole) == sorted(expected)


def test_shifting_an_image_by_a_whole_tile_shifts_its_labels(model):
    tile = TileConfig(SIZE, overlap=0.25, whole_image=False)
    content = noise(SIZE + tile.stride, SIZE + 2 * tile.stride)
    blank = np.zeros((SIZE + 3 * tile.stride, SIZE + 4 * tile.stride, 3), np.uint8)
    here, there = blank.copy(), blank.copy()
    height, width = content.shape[:2]
    here[tile.stride :, tile.stride :][:height, :width] = content
    there[2 * tile.stride :, 2 * tile.stride :][:height, :width] = content

    def inner(detections, shift):
        """What lies on the content, in its own pixels; not at its ends, where tiles see different surroundings."""
        edge = tile.size - tile.stride
        found = []
        for label, box, score, _ in instances(detections):
            x1, y1, x2, y2 = box[0] - shift, box[1] - shift, box[2] - shift, box[3] - shift
            if min(x1, y1) > edge and x2 < width - edge and y2 < height - edge:
                found.append((label, round(score, 6), [round(value, 3) for value in (x1, y1, x2, y2)]))
        return sorted(found)

    predict = predictor(model, tile)
    one, other = predict([here, there])
    assert inner(one, tile.stride)
    assert inner(one, tile.stride) == inner(other, 2 * tile.stride)


def test_images_that_share_batches_do_not_change_each_other(model):
    images = [noise(150, 130, 1), noise(50, 60, 2), noise(97, 200, 3), noise(96, 96, 4)]
    predict = predictor(model, TileConfig(SIZE, max_detections=12), batch_size=4)
    together = predict(images)
    assert [(found.height, found.width) for found in together] == [image.shape[:2] for image in images]
    assert [len(found) for found in together] == [12, 10, 12, 10]
    for found, image in zip(together, images, strict=True):
        (alone,) = predict([image])
        assert instances(found) == instances(alone)


def test_the_batch_size_changes_no_more_than_rounding(model):
    image = noise(150, 200)
    tile = TileConfig(SIZE)
    one, four = (predictor(model, tile, batch_size=size)([image])[0] for size in (1, 4))
    # scores that differ by rounding alone may change places
    rows = [np.column_stack([found.labels, found.scores, found.boxes]) for found in (one, four)]
    distances = np.abs(rows[0][:, None] - rows[1][None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    assert sorted(nearest) == list(range(len(four)))
    assert distances.min(axis=1).max() < 1e-2


def test_a_predictor_with_tiles_pickles(model):
    predict = predictor(model, TileConfig(SIZE, 0.3, max_detections=7))
    again = pickle.loads(pickle.dumps(predict))
    assert again.tile == predict.tile
    image = noise(150, 130)
    assert instances(again([image])[0]) == instances(predict([image])[0])
