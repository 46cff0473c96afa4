"""Augmentation keeps boxes and masks on their objects; a sample is a function of (seed, epoch, position)."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from yolact.coco.reading import parse_coco
from yolact.training import augmentation
from yolact.training.augmentation import Window, build_augmentation, distort_colours
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


def test_without_augmentation_the_image_is_squashed_and_boxes_with_it():
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


@pytest.mark.compute
@pytest.mark.parametrize("recipe", ["none", "ssd", "microscopy"])
def test_objects_at_the_right_and_bottom_edge_stay(recipe):
    """`w · (S / w)` rounds above S for many sides w: such an object must not be dropped."""
    transform = build_augmentation(recipe, 48, 24)
    for side in range(20, 120, 2):
        sides = torch.tensor([0.0, 0.0, float(side), float(side)])
        whole = {**sample(count=1, height=side, width=side), "boxes": sides[None]}
        torch.manual_seed(side)
        assert len(transform(whole)["boxes"]) == 1, f"the object of a whole image of {side} px is lost"


def colours_of(seeds, colour):
    """What becomes of a pixel of one colour: (seeds, 3) float."""
    image = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        found.append(distort_colours(image)[:, 0, 0].float())
    return torch.stack(found)


@pytest.mark.compute
def test_ssd_never_swaps_channels():
    """Red over green over blue by more than a hue of 18° can turn: the order of the channels stays."""
    colours = colours_of(400, (200, 120, 40))
    clamped = ((colours == 0) | (colours == 255)).any(dim=1)
    ordered = (colours[:, 0] > colours[:, 1]) & (colours[:, 1] > colours[:, 2])
    assert (ordered | clamped).all()
    assert (~clamped).float().mean() > 0.5


@pytest.mark.compute
def test_each_colour_step_comes_with_probability_one_half():
    """On grey, hue and saturation do nothing: the four combinations of brightness and contrast stand apart."""
    grey = colours_of(2000, (100, 100, 100))
    assert (grey == grey[:, :1]).all()
    untouched = (grey[:, 0] == 100).float().mean().item()
    # 1/4 neither; brightness rounds back to 100 in 1 of 64 and contrast in 1 of 100 of its cases
    assert untouched == pytest.approx(0.25 + 0.25 / 64 + 0.25 / 100, abs=0.035)


@pytest.mark.compute
def test_the_strength_of_each_colour_step(monkeypatch):
    """One step at a time: brightness ±32, contrast ×0.5–1.5, saturation ×0.5–1.5, hue ±18°."""

    def alone(step, colour):
        found = []
        for seed in range(300):
            torch.manual_seed(seed)
            coins = iter([number == step for number in range(4)])
            monkeypatch.setattr(augmentation, "_coin", lambda coins=coins: next(coins))
            image = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
            found.append(distort_colours(image)[:, 0, 0].float())
        return torch.stack(found)

    brightness = alone(0, (100, 120, 140)) - torch.tensor([100.0, 120.0, 140.0])
    assert (brightness == brightness[:, :1]).all()
    assert (brightness.min().item(), brightness.max().item()) == pytest.approx((-32, 32), abs=1)
    contrast = alone(1, (40, 80, 160)) / torch.tensor([40.0, 80.0, 160.0])
    assert (contrast.min().item(), contrast.max().item()) == pytest.approx((0.5, 1.5), abs=0.03)
    saturation = alone(2, (200, 100, 100))
    assert (saturation[:, 0] == 200).all()  # the largest channel, V, stays
    assert (saturation[:, 1].min().item(), saturation[:, 1].max().item()) == pytest.approx((50, 150), abs=2)
    hue = alone(3, (200, 100, 100))
    assert (hue.amax(dim=1) == 200).all()
    assert (hue.amin(dim=1) == 100).all()
    # 18° are 0.3 of a sixth of the circle, hence 30 of the 100 between the largest and the smallest channel
    assert hue[:, 1].max().item() == pytest.approx(130, abs=1)
    assert hue[:, 2].max().item() == pytest.approx(130, abs=1)


def test_hue_and_saturation_agree_with_the_standard_library():
    generator = torch.Generator().manual_seed(5)
    for red, green, blue in torch.randint(0, 256, (200, 3), generator=generator).tolist():
        h, s, v = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        wanted = [255 * value for value in colorsys.hsv_to_rgb((h + 13 / 360) % 1, s * 0.7, v)]
        pixel = torch.tensor([red, green, blue]).float()[:, None, None]
        turned = augmentation._with_hue_and_saturation(pixel, 13, 0.7)
        assert turned.flatten().tolist() == pytest.approx(wanted, abs=1e-3)


def test_contrast_before_and_after_hue_and_saturation_is_the_same():
    image = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1)) * 255
    first = augmentation._with_hue_and_saturation(image * 1.4, -11, 1.3)
    last = augmentation._with_hue_and_saturation(image.clone(), -11, 1.3) * 1.4
    assert torch.allclose(first, last, atol=1e-3)


def square_sample(side=100):
    """One object in the middle of a square image."""
    values = sample(count=1, height=side, width=side)
    values["boxes"] = torch.tensor([[45.0, 45.0, 55.0, 55.0]])
    return values


@pytest.mark.compute
def test_half_of_the_images_are_zoomed_out_up_to_four_times(monkeypatch):
    canvases = []
    everything = torch.ones(1, dtype=torch.bool)
    monkeypatch.setattr(augmentation, "_crop_of", lambda canvas, _: (canvases.append(canvas), everything))
    monkeypatch.setattr(augmentation, "_cut", lambda sample, *_: sample)
    for seed in range(1000):
        torch.manual_seed(seed)
        augmentation._ssd(square_sample())
    ratios = torch.tensor([canvas.width / 100 for canvas in canvases if canvas.width > 100])
    assert len(ratios) / 1000 == pytest.approx(0.5, abs=0.05)
    assert 1 <= ratios.min() < 1.1
    assert 3.9 < ratios.max() <= 4
    assert ratios.mean().item() == pytest.approx(2.5, abs=0.12)
    for canvas in canvases:
        assert canvas.width == canvas.height
        assert -canvas.width + 100 <= canvas.left <= 0


def test_a_zoom_out_is_filled_with_the_mean():
    whole = torch.ones(1, dtype=torch.bool)
    cut = augmentation._cut(square_sample(), Window(-20, -30, 200, 210), whole, torch.tensor(augmentation.FILL_RGB))
    assert cut["image"][:, 0, 0].tolist() == [124, 117, 104]
    assert cut["boxes"].tolist() == [[75, 65, 85, 75]]
    assert cut["masks"].shape == (1, 200, 210)


@pytest.mark.compute
def test_one_crop_in_six_keeps_everything_and_the_rest_keep_to_their_bounds():
    whole, shapes = 0, []
    # objects everywhere, so that every try is good
    centres = torch.cartesian_prod(torch.arange(5, 100, 10), torch.arange(5, 100, 10)).float()
    objects = {
        **square_sample(),
        "boxes": torch.cat([centres - 5, centres + 5], dim=1),
        "is_crowd": torch.zeros(100, dtype=torch.bool),
    }
    for seed in range(1200):
        torch.manual_seed(seed)
        window, kept = augmentation._crop_of(Window(0, 0, 100, 100), objects)
        if window == (0, 0, 100, 100):
            whole += 1
            continue
        shapes.append((window.height, window.width))
        inside = (
            (centres > torch.tensor([window.left, window.top]))
            & (centres < torch.tensor([window.left + window.width, window.top + window.height]))
        ).all(dim=1)
        assert torch.equal(kept, inside)
        assert kept.any()
    assert whole / 1200 == pytest.approx(1 / 6, abs=0.035)
    heights, widths = torch.tensor(shapes).float().unbind(dim=1)
    assert 29 <= min(heights.min(), widths.min()) <= 33
    assert max(heights.max(), widths.max()) <= 100
    assert 0.47 <= (heights / widths).min() < 0.55
    assert 1.8 < (heights / widths).max() <= 2.1


def test_a_crop_keeps_at_least_one_object_that_is_no_crowd():
    values = {**square_sample(), "boxes": torch.tensor([[0.0, 0, 90, 90], [92, 92, 99, 99]])}
    values["is_crowd"] = torch.tensor([True, False])
    for seed in range(150):
        torch.manual_seed(seed)
        _, kept = augmentation._crop_of(Window(0, 0, 100, 100), values)
        assert kept[1]
    values["is_crowd"] = torch.tensor([True, True])
    assert augmentation._crop_of(Window(0, 0, 100, 100), values)[0] == (0, 0, 100, 100)


@pytest.mark.compute
def test_half_of_the_images_are_mirrored(monkeypatch):
    monkeypatch.setattr(augmentation, "_zoomed_out", lambda height, width: Window(0, 0, height, width))
    ramp = torch.arange(0, 16, dtype=torch.uint8).expand(3, 16, 16).contiguous() * 8 + 60  # brighter to the right
    bare = {**sample(count=0, height=16, width=16), "image": ramp}
    mirrored = 0
    for seed in range(600):
        torch.manual_seed(seed)
        image = augmentation._ssd(bare)["image"].float().mean(dim=0)
        mirrored += bool(image[0, 0] > image[0, -1])
    assert mirrored / 600 == pytest.approx(0.5, abs=0.07)


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


def test_images_of_another_size_than_annotated_are_named(dataset):
    dataset.read_bytes = lambda name: png(1)[:40]
    with pytest.raises(ValueError, match=r"image 4 \(4\.png\)"):
        dataset[(0, 4)]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 5, 6])
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


@pytest.mark.parametrize("num_workers", [3, 5, 6, 7])
def test_shares_of_a_batch_differ_by_at_most_one_image(num_workers):
    shares = [len(next(iter(EpochSampler(10, 8, 5, worker=w, num_workers=num_workers)))) for w in range(num_workers)]
    assert sum(shares) == 8
    assert max(shares) - min(shares) == 1


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="9 workers cannot share a batch of 8 images"):
        EpochSampler(10, 8, 5, num_workers=9)
    with pytest.raises(ValueError, match="no images"):
        EpochSampler(0, 8, 5)
