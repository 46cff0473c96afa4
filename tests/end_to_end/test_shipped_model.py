"""The model that ships: small, of its config's shape, and able to find nuclei in images that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.shared_data import shared_path
from support.training import draw_plates

import yolact
from jobs.train.data import ImageSet, open_image_set
from jobs.train.validation import detect_images
from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import evaluate_instances
from yolact.weights.files import read_own_header, resolve_weights

pytestmark = pytest.mark.compute


def shipped() -> Path:
    return resolve_weights(yolact.CONFIGS["nuclei"])


def test_it_is_small_and_carries_its_config_and_its_card():
    data = shipped().read_bytes()
    assert len(data) <= 20e6
    config, provenance = read_own_header(data, "nuclei")
    assert config == yolact.CONFIGS["nuclei"]
    assert provenance["images"] == 472
    with safe_open(shipped(), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    assert shipped().with_suffix(".md").read_text().startswith("# nuclei")


def mask_ap50(images: ImageSet) -> float:
    found = list(detect_images(yolact.load_checkpoint(shipped()), images, "cpu", range(len(images.data.images))))
    return evaluate_instances(coco_json(images.data), found, 500)["mask"].ap50


def test_it_finds_the_nuclei_of_synthetic_plates(tmp_path):
    paths = draw_plates(tmp_path, 4, height=256, width=256, density=60, mean_diameter=20)
    # far below what it reaches on plates: the test is there to notice a broken model
    assert mask_ap50(open_image_set(paths["annotations"], paths["images"], "plates")) > 0.5


def test_it_finds_the_nuclei_of_validation_images():
    folder = shared_path("data") / "nuclei"
    images = open_image_set(str(folder / "instances_val.json"), str(folder / "val"), "validation set")
    small = [image for image in images.data.images if (image.height, image.width) == (256, 256)][:8]
    images = replace(images, data=replace(images.data, images=tuple(small)))
    # far below what the card says of all images: the test is there to notice a broken model
    assert mask_ap50(images) > 0.5
