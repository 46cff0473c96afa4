"""The losses by hand-computed cases; the release's numbers are in test_loss_parity."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.gpu_counter import GpuCounter
from torch.nn import functional as F

from yolact.config import AnchorConfig, YolactConfig
from yolact.geometry.masks import crop_pixels, resize_masks
from yolact.network.model import build_yolact
from yolact.training.losses import YolactWithLoss, class_loss
from yolact.training.mask_losses import mask_loss
from yolact.training.targets import TargetMaker, batch_targets

TINY = YolactConfig(
    name="tiny",
    input_size=64,
    backbone="mobilenetv2",
    class_names=("a", "b"),
    anchors=AnchorConfig(((12.0,), (24.0,)), ratios=(1.0,)),
    head_levels=(3, 4),
    fpn_channels=8,
    head_channels=8,
    protonet_channels=8,
    num_prototypes=4,
)


def target(boxes, labels, size=64, crowd=None):
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": masks,
        "is_crowd": torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    }


@pytest.fixture(scope="module")
def trainable():
    torch.manual_seed(0)
    return YolactWithLoss(build_yolact(TINY).eval())


def test_names_and_gradients(trainable):
    images = torch.randn(2, 3, 64, 64)
    losses = trainable(images, [target([[8, 8, 24, 24]], [1]), target([], [])])
    assert set(losses) == {"class", "box", "mask", "semantic"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in trainable.parameters())


def test_batch_without_any_object_has_finite_losses_and_all_gradients(trainable):
    trainable.zero_grad()
    losses = trainable(torch.randn(1, 3, 64, 64), [target([], [])])
    assert [losses[name].item() for name in ("class", "box", "mask")] == [0, 0, 0]
    assert losses["semantic"] > 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in trainable.parameters())


def test_crowds_are_neither_learnt_nor_held_against(trainable):
    images = torch.randn(1, 3, 64, 64)
    one = target([[8, 8, 24, 24]], [1])
    both = target([[8, 8, 24, 24], [30, 30, 60, 60]], [1, 0], crowd=[False, True])
    with torch.no_grad():
        alone, crowded = trainable(images, [one]), trainable(images, [both])
    for name in ("box", "mask", "semantic"):
        assert crowded[name].item() == pytest.approx(alone[name].item())


@pytest.mark.parametrize("cut", [1, 2])
def test_shares_of_a_batch_average_to_its_losses(trainable, cut):
    """Uneven shares, each divided by the means over workers, average to the whole batch: the semantic loss too."""
    torch.manual_seed(3)
    images = torch.randn(3, 3, 64, 64)
    targets = [
        target([[8, 8, 24, 24]], [1]),
        target([[0, 0, 30, 30], [40, 8, 52, 20], [30, 40, 60, 64]], [0, 1, 1]),
        target([], []),
    ]
    model = trainable.model
    shares = [slice(0, cut), slice(cut, 3)]
    counts = []
    counting = YolactWithLoss(model, lambda own: counts.append(own) or own)
    with torch.no_grad():
        whole = trainable(images, targets)
        for share in shares:
            counting(images[share], targets[share])
        mean = torch.stack(counts).mean(dim=0)
        sharing = YolactWithLoss(model, lambda _: mean)
        parts = [sharing(images[share], targets[share]) for share in shares]
    assert [int(count[1]) for count in counts] == [cut, 3 - cut]
    for name, loss in whole.items():
        assert (parts[0][name] + parts[1][name]).item() / 2 == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.compute
def test_limit_of_masks_rescales_and_follows_the_seed(trainable):
    model = build_yolact(replace(TINY, max_masks_per_image=2)).eval()
    model.load_state_dict(trainable.model.state_dict())
    limited = YolactWithLoss(model)
    images = torch.randn(1, 3, 64, 64)
    full = target([[0, 0, 30, 30], [30, 30, 62, 62], [8, 36, 24, 60]], [0, 1, 1])
    with torch.no_grad():
        draws = [limited(images, [{**full, "seed": seed}])["mask"].item() for seed in range(12)]
        again = limited(images, [{**full, "seed": 3}])["mask"].item()
        everything = trainable(images, [full])["mask"].item()
    assert again == draws[3]
    assert len(set(draws)) > 1
    assert sum(draws) / len(draws) == pytest.approx(everything, rel=0.3)


def test_masks_at_prototype_size_give_the_same_mask_loss(trainable):
    images = torch.randn(1, 3, 64, 64)
    full = target([[8, 8, 24, 24], [30, 20, 50, 60]], [1, 0])
    size = TINY.prototype_size
    small = {**full, "masks": resize_masks(full["masks"], size, size)}
    with torch.no_grad():
        assert trainable(images, [small])["mask"].item() == pytest.approx(trainable(images, [full])["mask"].item())


def test_targets_must_be_as_many_as_images(trainable):
    with pytest.raises(ValueError, match="2 images but 1 targets"):
        trainable(torch.zeros(2, 3, 64, 64), [target([], [])])


def targets_of(boxes, masks=None, side=16):
    """One image of `side` pixels with an anchor for each box and prototypes of the same size."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    anchors = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1) / side
    make = TargetMaker(anchors, side, side, side // 2, max_masks=100)
    count = len(boxes)
    return make(
        {
            "boxes": boxes,
            "labels": torch.zeros(count, dtype=torch.int64),
            "masks": torch.zeros(count, side, side, dtype=torch.bool) if masks is None else masks,
            "is_crowd": torch.zeros(count, dtype=torch.bool),
        }
    )


def test_class_loss_takes_the_three_hardest_negatives_per_positive_of_each_image():
    logits = torch.zeros(2, 8, 2)
    logits[0, :, 0] = torch.tensor([0.0, 9, 1, 2, 3, 4, 0, 0])
    logits[1, :, 0] = torch.tensor([1.0, 9, 1, 2, 3, 4, 5, 6])
    first = targets_of([[4, 4, 8, 12]])._replace(
        is_background=torch.tensor([False, True, True, True, True, True, False, False]), num_negatives=3
    )
    # anchor 1 of the second image is its only background, as if the others were neutral
    second = targets_of([[0, 0, 1, 1]])._replace(
        is_background=torch.arange(8) == 1, num_negatives=1, positives=torch.tensor([0])
    )
    targets = batch_targets([first, second])
    margins = [(0,), (1, 2, 3), (-1,), (9,)]  # of positives the other way round
    chosen = [math.log(1 + math.exp(-margin)) for group in margins for margin in group]
    assert class_loss(logits, targets).item() == pytest.approx(sum(chosen), rel=1e-5)


def test_mask_loss_of_undecided_prototypes():
    """Probability one half everywhere: each pixel of the crop costs log 2, divided by the box's area."""
    targets = batch_targets([targets_of([[4, 4, 8, 12]]), targets_of([[2, 2, 4, 4]])])
    loss = mask_loss(torch.zeros(2, 4, 16, 16), torch.zeros(2, 4), targets)
    assert loss.item() == pytest.approx(math.log(2) * ((6 * 10) / (4 * 8) + (4 * 4) / (2 * 2)), rel=1e-5)


def test_mask_loss_looks_inside_of_the_crop_only_and_at_the_prototypes_of_the_image():
    prototypes = torch.full((2, 1, 16, 16), -50.0)
    prototypes[1, 0, 4:8, 4:8] = 50.0
    wanted = torch.zeros(1, 16, 16, dtype=torch.bool)
    wanted[0, 4:8, 4:8] = True
    wanted[0, 14:, 14:] = True  # outside of the box: not this box's business
    targets = batch_targets([targets_of([[10, 1, 14, 5]]), targets_of([[4, 4, 8, 8]], wanted)])
    assert mask_loss(prototypes, torch.ones(2, 1), targets).item() == pytest.approx(0, abs=1e-4)


def test_a_batch_has_the_losses_of_its_images(trainable):
    torch.manual_seed(5)
    images = torch.randn(4, 3, 64, 64)
    targets = [
        target([[8, 8, 24, 24]], [1]),
        target([[0, 0, 30, 30], [40, 8, 52, 20], [30, 40, 60, 64]], [0, 1, 1], crowd=[False, True, False]),
        target([], []),
        target([[3, 30, 20, 60], [4, 4, 9, 9]], [0, 0]),
    ]
    sums = YolactWithLoss(trainable.model, lambda _: torch.ones(2))  # divided by nothing
    with torch.no_grad():
        whole = sums(images, targets)
        alone = [sums(image[None], [one]) for image, one in zip(images, targets, strict=True)]
    for name, loss in whole.items():
        assert loss.item() == pytest.approx(sum(part[name].item() for part in alone), rel=1e-4)


#: of one loss of 8 images. Image by image they were 116 waits
MOST_KERNELS, MOST_WAITS = 95, 0


@pytest.mark.compute
@pytest.mark.parametrize("rescoring", [False, True])
def test_kernels_and_waits_of_the_losses_of_8_images(rescoring):
    """Forward and backward. A GPU does nothing else for the losses: matching is done by the loader."""
    config = replace(TINY, mask_rescoring=rescoring, input_size=128, protonet_level=2)
    model = build_yolact(config).eval()
    make = TargetMaker.of(config)
    boxes = [[4, 4, 60, 60], [70, 10, 120, 40], [30, 80, 50, 100]]
    targets = batch_targets([make(target(boxes[: 1 + n % 3], [1, 0, 1][: 1 + n % 3], size=128)) for n in range(8)])
    trainable = YolactWithLoss(model)
    raw = model(torch.randn(8, 3, 128, 128))
    with GpuCounter() as counter:
        losses = trainable.losses(raw, targets)
    assert counter.kernels.total() <= MOST_KERNELS + 65 * rescoring, counter.kernels
    assert counter.waits.total() <= MOST_WAITS, counter.waits
    with GpuCounter() as counter:
        torch.stack(list(losses.values())).sum().backward()
    assert counter.waits.total() == 0, counter.waits


def test_crop_pixels_grow_the_box_by_one_and_stay_on_the_map():
    crops = crop_pixels(torch.tensor([[0.0, 0.25, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]]), 8, 8)
    first = crops.instance == 0
    assert sorted(set(crops.column[first].tolist())) == [0, 1, 2, 3, 4]  # 0 − 1 ≤ x < 4 + 1
    assert sorted(set(crops.row[first].tolist())) == [1, 2, 3, 4]  # 2 − 1 ≤ y < 4 + 1
    # 2.4 − 1 ≤ x < 2.4 + 1
    assert sorted(set(crops.column[~first].tolist())) == [2, 3]


@pytest.mark.parametrize(("source", "size"), [((31, 47), (16, 16)), ((64, 64), (32, 32)), ((20, 30), (64, 48))])
def test_resized_masks_are_those_of_interpolate(source, size):
    masks = torch.rand(5, *source, generator=torch.Generator().manual_seed(1)) > 0.6
    masks[1] = False
    masks[2, : source[0] // 2] = False
    wanted = F.interpolate(masks[None].float(), size, mode="bilinear", align_corners=False)[0] > 0.5
    assert torch.equal(resize_masks(masks, *size), wanted)


def test_rescoring_loss_is_there_for_plus_models():
    torch.manual_seed(1)
    config = replace(TINY, mask_rescoring=True, input_size=128, protonet_level=2)
    trainable = YolactWithLoss(build_yolact(config).eval())
    large = trainable(torch.randn(1, 3, 128, 128), [target([[4, 4, 60, 60]], [1], size=128)])
    assert large["mask_iou"] > 0
    small = trainable(torch.randn(1, 3, 128, 128), [target([[4, 4, 10, 10]], [1], size=128)])
    assert small["mask_iou"].item() == 0
    sum(small.values()).backward()
    assert all(parameter.grad is not None for parameter in trainable.model.mask_scoring.parameters())
