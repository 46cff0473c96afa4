"""Images damaged in the middle: their ends look right, and only decoding them tells."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import tiny_training_config
from support.odd_annotations import HEIGHT, WIDTH, good_content

from jobs import storage
from jobs.train.broken_images import BrokenImageError, GuardedDataset, message_of, read_pixels
from jobs.train.data import open_image_set
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import TrainingDataset, collate
from yolact.training.packed import PackedImages
from yolact.training.targets import TargetMaker


def png(damaged=False):
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    if damaged:
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    return bytes(data)


@pytest.fixture
def images_of(tmp_path):
    """Opens a training set in which some of the two images are damaged in the middle."""

    def open_it(*damaged, **options):
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(png(name in damaged))
        (tmp_path / "truth.json").write_text(json.dumps(good_content()))
        return open_image_set(str(tmp_path / "truth.json"), str(tmp_path), "training set", **options)

    return open_it


def guarded(images):
    make_targets = TargetMaker.of(tiny_training_config())
    dataset = TrainingDataset(
        PackedImages(images.data), images.read_bytes, build_augmentation("none", 64), make_targets
    )
    return GuardedDataset(dataset, images.skip_broken)


def test_an_image_damaged_in_the_middle_is_named(images_of):
    dataset = guarded(images_of("b.png"))
    assert dataset[0, 0].image_id == 1
    with pytest.raises(BrokenImageError, match=r"image 2 \(b\.png\)"):
        dataset[0, 1]


def test_the_next_image_takes_its_place(images_of, caplog):
    dataset = guarded(images_of("b.png", skip_broken=True))
    assert [dataset[0, slot].image_id for slot in (0, 1, 1)] == [1, 1, 1]
    assert len(caplog.records) == 1
    assert "the next image takes its place" in caplog.text
    with pytest.raises(BrokenImageError):
        guarded(images_of("a.png", "b.png", skip_broken=True))[0, 0]


def test_a_file_that_is_gone_is_a_broken_image(images_of, tmp_path):
    dataset = guarded(images_of())
    (tmp_path / "b.png").unlink()
    with pytest.raises(BrokenImageError, match=r"b\.png"):
        dataset[0, 1]


def test_a_store_that_does_not_answer_is_no_broken_image(images_of):
    images = images_of(skip_broken=True)
    dataset = guarded(images)

    def read(_):
        raise storage.TransientStorageError("no answer")

    dataset.dataset.read_bytes = read
    with pytest.raises(storage.TransientStorageError):
        dataset[0, 0]


@pytest.mark.process
@pytest.mark.parametrize("processes", [0, 1])
def test_the_message_is_one_line_also_out_of_a_loader_process(images_of, processes):
    loader = torch.utils.data.DataLoader(
        guarded(images_of("b.png")),
        batch_sampler=[[(0, 1)]],
        collate_fn=collate,
        num_workers=processes,
        multiprocessing_context="fork" if processes else None,
    )
    with pytest.raises(BrokenImageError) as caught:
        next(iter(loader))
    assert message_of(caught.value).startswith("image 2 (b.png): ")
    assert "\n" not in message_of(caught.value)


def test_validation_leaves_a_broken_image_without_detections(images_of):
    images = images_of("b.png", skip_broken=True)
    assert read_pixels(images, images.data.images[0]).shape == (HEIGHT, WIDTH, 3)
    assert read_pixels(images, images.data.images[1]) is None
    images = images_of("b.png")
    with pytest.raises(BrokenImageError, match=r"image 2 \(b\.png\)"):
        read_pixels(images, images.data.images[1])
