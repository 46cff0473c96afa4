"""Augmentation keeps boxes and masks on their objects; a sample is a function of (seed, epoch, position)."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from yolact.coco.annotations import parse_coco
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import EpochSampler, TrainingDataset, collate, epoch_order


def sample(count=3, height=90, width=120):
    """Bright rectangles, each of its own grey, on black."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    boxes = (
        torch.tensor([[10 + 36 * i, 20 + 9 * i, 34 + 36 * i, 50 + 9 * i] for i in range(count)]).float().reshape(-1, 4)
    )
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        masks[i, y1:y2, x1:x2] = 1
        image[:, y1:y2, x1:x2] = 90 + 50 * i
    return {
        "image": image,
        "boxes": boxes,
        "labels": torch.arange(count),
        "masks": masks,
        "is_crowd": torch.zeros(count, dtype=torch.bool),
    }


def test_without_augmentation_the_picture_is_squashed_and_boxes_with_it():
    result = build_augmentation("none", 60, 30)(sample())
    assert result["image"].shape == (3, 60, 60)
    assert result["image"].dtype == torch.uint8
    assert result["masks"].shape == (3, 30, 30)
    assert result["boxes"][0].tolist() == pytest.approx([5, 20 * 60 / 90, 17, 50 * 60 / 90])


@pytest.mark.parametrize("recipe", ["ssd", "microscopy"])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_on_their_masks(recipe, seed):
    torch.manual_seed(seed)
    result = build_augmentation(recipe, 96)(sample())
    count = len(result["boxes"])
    assert result["image"].shape == (3, 96, 96)
    assert {len(result[name]) for name in ("labels", "masks", "is_crowd")} == {count}
    assert ((result["boxes"] >= 0) & (result["boxes"] <= 96)).all()
    for box, mask in zip(result["boxes"], result["masks"], strict=True):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        if not len(rows):
            continue  # cut to a sliver thinner than a pixel of the mask
        tight = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
        assert box.tolist() == pytest.approx(tight, abs=1.6)


@pytest.mark.parametrize("seed", range(6))
def test_microscopy_moves_pixels_and_masks_together(seed):
    torch.manual_seed(seed)
    result = build_augmentation("microscopy", 120)(sample())
    grey = result["image"].float().mean(dim=0)
    for mask in result["masks"]:
        core = torch.nn.functional.max_pool2d(-mask[None].float(), 9, 1, 4)[0] == -1
        if core.sum() > 20:
            assert grey[core].std() < 12  # one object has one grey, wherever it went


@pytest.mark.parametrize("recipe", ["none", "ssd", "microscopy"])
def test_images_without_objects_pass(recipe):
    for seed in range(5):
        torch.manual_seed(seed)
        result = build_augmentation(recipe, 64)(sample(count=0))
        assert result["boxes"].shape == (0, 4)
        assert result["masks"].shape == (0, 64, 64)


def test_unknown_recipes_are_refused():
    with pytest.raises(ValueError, match="'mixup' is unknown"):
        build_augmentation("mixup", 64)


def png(value):
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def dataset():
    square = [[8, 8, 30, 8, 30, 30, 8, 30]]
    data = parse_coco(
        {
            "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in range(5)],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 22, 22], "segmentation": square}
                for i in range(5)
            ],
        }
    )
    return TrainingDataset(data, lambda name: png(40 * int(name[0])), build_augmentation("microscopy", 32), seed=3)


def test_a_sample_is_a_function_of_seed_epoch_and_position(dataset):
    torch.manual_seed(1)
    first = dataset[(0, 2)]
    before = torch.get_rng_state()
    again = dataset[(0, 2)]
    assert torch.equal(torch.get_rng_state(), before)  # and leaves the global generator alone
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.target["masks"], again.target["masks"])
    assert first.target["seed"] == again.target["seed"] != dataset[(1, 2)].target["seed"]
    assert not torch.equal(first.image, dataset[(1, 2)].image)


def test_collate_keeps_targets_apart(dataset):
    batch = collate([dataset[(0, 0)], dataset[(0, 1)]])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.image_ids == [0, 1]
    assert len(batch.targets) == 2


def test_pictures_of_another_size_than_annotated_are_named(dataset):
    dataset.read_bytes = lambda name: png(1)[:40]
    with pytest.raises(ValueError, match=r"image 4 \(4\.png\)"):
        dataset[(0, 4)]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 6])
def test_global_batches_do_not_depend_on_the_number_of_workers(num_workers):
    def batches(workers, first_step=0):
        shares = [list(EpochSampler(10, 6, 9, first_step, worker, workers, seed=4)) for worker in range(workers)]
        return [[item for share in step for item in share] for step in zip(*shares, strict=True)]

    assert batches(num_workers) == batches(1)
    assert batches(num_workers, first_step=4) == batches(1)[4:]


def test_each_image_comes_once_per_epoch():
    items = [item for batch in EpochSampler(10, 4, 5, seed=1) for item in batch]
    assert sorted(position for epoch, position in items if epoch == 0) == list(range(10))
    assert sorted(position for epoch, position in items if epoch == 1) == list(range(10))
    assert epoch_order(10, 1, 0).tolist() != epoch_order(10, 1, 1).tolist()


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="8 images cannot be shared evenly by 3 workers"):
        EpochSampler(10, 8, 5, num_workers=3)
    with pytest.raises(ValueError, match="no images"):
        EpochSampler(0, 8, 5)
