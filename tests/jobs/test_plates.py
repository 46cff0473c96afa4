"""Synthetic plates: the same arguments give the same bytes, and the ground truth is what was drawn."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_tools

from jobs.plates import PlatesConfig, run
from jobs.plates.drawing import MIN_AREA, draw_plate
from jobs.runtime.errors import UsageError
from yolact.coco.annotations import ground_truth_arrays
from yolact.coco.checks import find_problems
from yolact.coco.reading import parse_coco


def test_a_plate_is_a_function_of_seed_and_number():
    first, again, other = draw_plate(1, 5, 128, 160), draw_plate(1, 5, 128, 160), draw_plate(1, 6, 128, 160)
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.instances, again.instances)
    assert not np.array_equal(first.pixels, other.pixels)
    assert first.pixels.shape == (128, 160, 3)


def test_nuclei_are_brighter_than_the_background_and_none_is_a_speck():
    plate = draw_plate(0, 0, density=80)
    numbers, areas = np.unique(plate.instances, return_counts=True)
    assert numbers.tolist() == list(range(plate.num_instances + 1))
    assert plate.num_instances > 20
    assert areas[1:].min() >= MIN_AREA
    grey = plate.pixels[..., 0].astype(float)
    assert grey[plate.instances > 0].mean() > 2 * grey[plate.instances == 0].mean()


@pytest.mark.parametrize("layout", ["images", "tar"])
def test_both_layouts_hold_the_same_images_and_truth(tmp_path, layout):
    output = tmp_path / layout
    assert run(PlatesConfig(str(output), 5, 96, 128, density=200, layout=layout, plates_per_shard=2)) == 0
    if layout == "tar":
        images = {}
        for shard in sorted((output / "shards").glob("*.tar")):
            with tarfile.open(shard) as tar:
                images |= {member.name: tar.extractfile(member).read() for member in tar}
    else:
        images = {path.name: path.read_bytes() for path in (output / "images").iterdir()}
    data = parse_coco(json.loads((output / "ground_truth.json").read_text()))
    assert find_problems(data, images) == []
    assert len(data.images) == 5
    for index, image in enumerate(data.images):
        plate = draw_plate(0, index, 96, 128, density=200)
        pixels = np.asarray(Image.open(io.BytesIO(images[image.file_name])))
        assert np.array_equal(pixels, plate.pixels[..., 0])
        masks = ground_truth_arrays(image, data.label_of_category)["masks"]
        assert np.array_equal(masks, [plate.instances == n for n in range(1, plate.num_instances + 1)])
        for annotation in image.annotations:
            assert list(annotation.bbox) == rle_tools.toBbox(annotation.segmentation).tolist()


def test_a_lake_is_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        run(PlatesConfig(str(tmp_path / name), 3, 64, 64, layout="tar"))
    shard = "shards/plates-000000.tar"
    assert (tmp_path / "a" / shard).read_bytes() == (tmp_path / "b" / shard).read_bytes()


def test_impossible_sizes_are_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="--num-plates 0"):
        run(PlatesConfig(str(tmp_path), num_plates=0))
