"""Augmentation keeps boxes and masks on their objects; a sample is a function of (seed, epoch, position)."""

from __future__ import annotations

import colorsys
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import tiny_training_config

from yolact.coco.reading import parse_coco
from yolact.training import augmentation, colours
from yolact.training.augmentation import View, build_augmentation, draw_ssd_view, show
from yolact.training.colours import ColourChange, change_colours, draw_colour_change
from yolact.training.dataset import EpochSampler, TrainingDataset, collate, epoch_order
from yolact.training.packed import ImageTruth, PackedImages, shape_rle
from yolact.training.targets import TargetMaker
from yolact.training.windows import Window, masks_in_window


def sample(count=3, height=90, width=120):
    """Bright rectangles, each of its own grey, on black: pixels and their ground truth."""
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = [[10 + 36 * i, 20 + 9 * i, 34 + 36 * i, 50 + 9 * i] for i in range(count)]
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = 90 + 50 * i
    return pixels, rectangles(boxes, height, width)


def rectangles(boxes, height, width, is_crowd=None, as_rle=False):
    """The ground truth of rectangles xyxy."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    shapes = [(np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.float32),) for x1, y1, x2, y2 in boxes]
    if as_rle:
        shapes = [shape_rle(shape, height, width)["counts"] for shape in shapes]
    crowd = np.zeros(len(boxes), bool) if is_crowd is None else np.array(is_crowd)
    return ImageTruth(height, width, boxes, np.arange(len(boxes)), crowd, tuple(shapes))


def test_without_augmentation_the_image_is_squashed_and_boxes_with_it():
    result = build_augmentation("none", 60, 30)(*sample())
    assert result.image.shape == (3, 60, 60)
    assert result.image.dtype == torch.uint8
    assert result.masks.shape == (3, 30, 30)
    assert result.boxes[0].tolist() == pytest.approx([5, 20 * 60 / 90, 17, 50 * 60 / 90])


@pytest.mark.parametrize("recipe", ["ssd", "microscopy"])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_on_their_masks(recipe, seed):
    torch.manual_seed(seed)
    result = build_augmentation(recipe, 96)(*sample())
    count = len(result.boxes)
    assert result.image.shape == (3, 96, 96)
    assert {len(result.labels), len(result.masks), len(result.is_crowd)} == {count}
    assert ((result.boxes >= 0) & (result.boxes <= 96)).all()
    for box, mask in zip(result.boxes, result.masks, strict=True):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        if not len(rows):
            continue  # cut to a sliver thinner than a pixel of the mask
        tight = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
        assert box.tolist() == pytest.approx(tight, abs=1.6)


@pytest.mark.parametrize("recipe", ["ssd", "microscopy"])
@pytest.mark.parametrize("seed", range(6))
def test_pixels_and_masks_move_together(recipe, seed):
    torch.manual_seed(seed)
    result = build_augmentation(recipe, 120)(*sample())
    grey = result.image.float().mean(dim=0)
    for mask in result.masks:
        core = torch.nn.functional.max_pool2d(-mask[None].float(), 9, 1, 4)[0] == -1
        if core.sum() > 20:
            assert grey[core].std() < 12  # one object has one grey, wherever it went


@pytest.mark.parametrize("recipe", ["none", "ssd", "microscopy"])
def test_images_without_objects_pass(recipe):
    for seed in range(5):
        torch.manual_seed(seed)
        result = build_augmentation(recipe, 64)(*sample(count=0))
        assert result.boxes.shape == (0, 4)
        assert result.masks.shape == (0, 64, 64)


@pytest.mark.compute
@pytest.mark.parametrize("recipe", ["none", "ssd", "microscopy"])
def test_objects_at_the_right_and_bottom_edge_stay(recipe):
    """`w · (S / w)` rounds above S for many sides w: such an object must not be dropped."""
    transform = build_augmentation(recipe, 48, 24)
    for side in range(20, 120, 2):
        truth = rectangles([[0, 0, side, side]], side, side)
        torch.manual_seed(side)
        made = transform(np.zeros((side, side, 3), np.uint8), truth)
        assert len(made.boxes) == 1, f"the object of a whole image of {side} px is lost"


def colours_of(seeds, colour):
    """What becomes of a pixel of one colour: (seeds, 3) float."""
    changes = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        changes.append(draw_colour_change())
    return changed(colour, changes)


def changed(colour, changes):
    """A pixel of one colour after each of several changes: (changes, 3) float."""
    image = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(len(changes), 3, 1, 1)
    return change_colours(image, torch.tensor(changes))[:, :, 0, 0]


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
    assert grey.allclose(grey[:, :1], atol=1e-3)
    assert (grey[:, 0] == 100).float().mean().item() == pytest.approx(0.25, abs=0.035)


@pytest.mark.compute
def test_the_strength_of_each_colour_step(monkeypatch):
    """One step at a time: brightness ±32, contrast ×0.5–1.5, saturation ×0.5–1.5, hue ±18°."""

    def alone(step, colour):
        changes = []
        for seed in range(300):
            torch.manual_seed(seed)
            coins = iter([number == step for number in range(4)])
            monkeypatch.setattr(colours, "coin", lambda coins=coins: next(coins))
            changes.append(draw_colour_change())
        return changed(colour, changes)

    brightness = alone(0, (100, 120, 140)) - torch.tensor([100.0, 120.0, 140.0])
    assert brightness.allclose(brightness[:, :1], atol=1e-3)
    assert (brightness.min().item(), brightness.max().item()) == pytest.approx((-32, 32), abs=1)
    contrast = alone(1, (40, 80, 160)) / torch.tensor([40.0, 80.0, 160.0])
    assert (contrast.min().item(), contrast.max().item()) == pytest.approx((0.5, 1.5), abs=0.03)
    saturation = alone(2, (200, 100, 100))
    assert (saturation[:, 0] == 200).all()  # the largest channel, V, stays
    assert (saturation[:, 1].min().item(), saturation[:, 1].max().item()) == pytest.approx((50, 150), abs=2)
    hue = alone(3, (200, 100, 100))
    assert (hue.amax(dim=1) == 200).all()
    assert hue.amin(dim=1).allclose(torch.tensor(100.0))
    # 18° are 0.3 of a sixth of the circle, hence 30 of the 100 between the largest and the smallest channel
    assert hue[:, 1].max().item() == pytest.approx(130, abs=1)
    assert hue[:, 2].max().item() == pytest.approx(130, abs=1)


def test_hue_and_saturation_agree_with_the_standard_library():
    generator = torch.Generator().manual_seed(5)
    for red, green, blue in torch.randint(0, 256, (200, 3), generator=generator).tolist():
        h, s, v = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        wanted = [255 * value for value in colorsys.hsv_to_rgb((h + 13 / 360) % 1, s * 0.7, v)]
        turned = changed((red, green, blue), [ColourChange(hue=13, saturation=0.7)])
        assert turned.flatten().tolist() == pytest.approx(wanted, abs=1e-3)


def test_each_image_of_a_batch_has_its_own_change_where_it_is_seen():
    images = torch.full((3, 3, 8, 8), 100, dtype=torch.uint8)
    changes = [ColourChange(), ColourChange(brightness=20, x1=2, y1=1, x2=5, y2=8), ColourChange(contrast=9.0)]
    found = change_colours(images, torch.tensor(changes))
    assert found.dtype == torch.float32
    assert (found[0] == 100).all()
    bright = torch.zeros(8, 8, dtype=torch.bool)
    bright[1:8, 2:5] = True
    assert (found[1][:, bright] == 120).all()
    assert (found[1][:, ~bright] == 100).all()
    assert (found[2] == 255).all()


def square_truth(side=100):
    """One object in the middle of a square image."""
    return rectangles([[45, 45, 55, 55]], side, side)


@pytest.mark.compute
def test_half_of_the_images_are_zoomed_out_up_to_four_times(monkeypatch):
    canvases = []
    everything = torch.ones(1, dtype=torch.bool)
    monkeypatch.setattr(augmentation, "_crop_of", lambda canvas, _: (canvases.append(canvas) or canvas, everything))
    for seed in range(1000):
        torch.manual_seed(seed)
        draw_ssd_view(square_truth())
    ratios = torch.tensor([canvas.width / 100 for canvas in canvases if canvas.width > 100])
    assert len(ratios) / 1000 == pytest.approx(0.5, abs=0.05)
    assert 1 <= ratios.min() < 1.1
    assert 3.9 < ratios.max() <= 4
    assert ratios.mean().item() == pytest.approx(2.5, abs=0.12)
    for canvas in canvases:
        assert canvas.width == canvas.height
        assert -canvas.width + 100 <= canvas.left <= 0


def test_a_zoom_out_is_filled_with_the_mean_which_keeps_its_colour():
    whole = torch.ones(1, dtype=torch.bool)
    view = View(Window(-20, -30, 200, 200), whole, mirrored=False, colours=ColourChange(brightness=30))
    made = show(view, np.full((100, 100, 3), 60, np.uint8), square_truth(), 200, 200)
    assert made.boxes.tolist() == [[75, 65, 85, 75]]
    assert made.masks.shape == (1, 200, 200)
    assert made.masks.sum() == 100
    final = change_colours(made.image[None], torch.tensor([made.colours]))[0]
    assert final[:, 0, 0].tolist() == final[:, 150, 150].tolist() == [124, 117, 104]
    assert (final[:, 20:120, 30:130] == 90).all()
    assert (final[0] == 90).sum() == 100 * 100
    mirrored = show(replace(view, mirrored=True), np.full((100, 100, 3), 60, np.uint8), square_truth(), 200, 200)
    assert torch.equal(change_colours(mirrored.image[None], torch.tensor([mirrored.colours]))[0], final.flip(2))


@pytest.mark.parametrize("as_rle", [False, True])
def test_what_reaches_over_the_edge_of_the_image_is_cut_in_a_zoom_out(as_rle):
    truth = rectangles([[60, 60, 100, 100]], 100, 100, as_rle=as_rle)
    if not as_rle:  # a polygon may leave its image
        truth = truth._replace(shapes=((np.array([60, 60, 130, 60, 130, 130, 60, 130], np.float32),),))
    mask = masks_in_window(truth, np.array([0]), Window(-50, -50, 200, 200), 100)[0]
    wanted = torch.zeros(100, 100, dtype=torch.bool)
    wanted[55:75, 55:75] = True
    assert torch.equal(mask, wanted)


@pytest.mark.compute
def test_one_crop_in_six_keeps_everything_and_the_rest_keep_to_their_bounds():
    whole, shapes = 0, []
    # objects everywhere, so that every try is good
    centres = torch.cartesian_prod(torch.arange(5, 100, 10), torch.arange(5, 100, 10)).float()
    objects = rectangles(torch.cat([centres - 5, centres + 5], dim=1), 100, 100)
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
    boxes = [[0, 0, 90, 90], [92, 92, 99, 99]]
    for seed in range(150):
        torch.manual_seed(seed)
        _, kept = augmentation._crop_of(Window(0, 0, 100, 100), rectangles(boxes, 100, 100, [True, False]))
        assert kept[1]
    crowds = rectangles(boxes, 100, 100, [True, True])
    assert augmentation._crop_of(Window(0, 0, 100, 100), crowds)[0] == (0, 0, 100, 100)


@pytest.mark.compute
def test_half_of_the_images_are_mirrored():
    mirrored = 0
    for seed in range(600):
        torch.manual_seed(seed)
        mirrored += draw_ssd_view(square_truth()).mirrored
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
    config = tiny_training_config()
    augment = build_augmentation("microscopy", config.input_size, config.prototype_size)
    make_targets = TargetMaker.of(config)
    return TrainingDataset(PackedImages(data), lambda name: png(40 * int(name[0])), augment, make_targets, seed=3)


def test_a_sample_is_a_function_of_seed_epoch_and_position(dataset):
    torch.manual_seed(1)
    first = dataset[(0, 2)]
    before = torch.get_rng_state()
    again = dataset[(0, 2)]
    assert torch.equal(torch.get_rng_state(), before)  # and leaves the global generator alone
    assert torch.equal(first.image, again.image)
    for one, other in zip(first.targets, again.targets, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert not torch.equal(first.image, dataset[(1, 2)].image)


def test_collate_puts_samples_together(dataset):
    samples = [dataset[(0, 0)], dataset[(0, 1)]]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.image_ids == [0, 1]
    assert batch.targets.batch_size == 2
    assert len(batch.targets.positives) == sum(len(sample.targets.positives) for sample in samples)
    assert batch.colours is None
    changed = collate([samples[0], samples[1]._replace(colours=ColourChange(hue=3.0))])
    assert changed.colours[:, 3].tolist() == [0, 3]


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
