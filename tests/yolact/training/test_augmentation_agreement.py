"""The "ssd" augmentation samples once, at the network's size. It must give what the release's order of steps gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.reference_augmentation import reference_ssd

from yolact.training.augmentation import build_augmentation
from yolact.training.colours import change_colours
from yolact.training.packed import ImageTruth, shape_rle

pytestmark = pytest.mark.compute

SIZE, MASK_SIZE = 96, 48
FIELDS = ("boxes", "labels", "is_crowd")


def draw_photo(seed, as_rle=False):
    """Smooth colours with sharp ellipses on them, one of which is a crowd now and then."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(90, 190, 2))
    y, x = np.mgrid[:height, :width]
    waves = rng.uniform(0.01, 0.06, (3, 2))
    pixels = np.stack([120 + 90 * np.sin(a * y + b * x + 2 * c) for c, (a, b) in enumerate(waves)], axis=2)
    boxes, shapes = [], []
    for _ in range(rng.integers(1, 7)):
        radii = rng.uniform(5, 35, 2)
        centre = rng.uniform(0.05, 0.95, 2) * (width, height)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        outline = centre + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        pixels[((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1] = rng.uniform(0, 255, 3)
        box = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
        boxes.append(box.clip(0, (width, height) * 2))
        polygon = (outline.reshape(-1).astype(np.float32),)
        shapes.append(shape_rle(polygon, height, width)["counts"] if as_rle else polygon)
    crowd = rng.random(len(boxes)) < 0.1
    truth = ImageTruth(height, width, np.array(boxes, np.float32), rng.integers(0, 5, len(boxes)), crowd, tuple(shapes))
    return pixels.clip(0, 255).astype(np.uint8), truth


def both(photo_seed, seed, other_seed=None, as_rle=False):
    """A sample in the old way and one in the new way, as dicts; the second one with a seed of its own if asked for."""
    pixels, truth = draw_photo(photo_seed, as_rle)
    torch.manual_seed(seed)
    reference = reference_ssd(pixels, truth, SIZE, MASK_SIZE)
    torch.manual_seed(seed if other_seed is None else other_seed)
    made = build_augmentation("ssd", SIZE, MASK_SIZE)(pixels, truth)
    image = change_colours(made.image[None], torch.tensor([made.colours]))[0]
    return reference, {**made._asdict(), "image": image}


def mask_iou(first, second):
    """(G,) IoU of two lists of masks; 1 where both are empty."""
    union = (first | second).flatten(1).sum(dim=1)
    return torch.where(union > 0, (first & second).flatten(1).sum(dim=1) / union.clamp(min=1), 1.0)


@pytest.mark.parametrize("as_rle", [False, True])
def test_the_same_random_numbers_give_the_same_sample(as_rle):
    differences, ious, areas = [], [], []
    for seed in range(60):
        reference, made = both(seed, seed, as_rle=as_rle)
        for name in FIELDS:
            assert reference[name].shape == made[name].shape
            assert reference[name].allclose(made[name], atol=1e-3)
        differences.append((reference["image"].float() - made["image"]).abs())
        ious.append(mask_iou(reference["masks"], made["masks"]))
        areas.append(torch.stack([reference["masks"].flatten(1).sum(1), made["masks"].flatten(1).sum(1)]))
    differences, ious, areas = torch.stack(differences), torch.cat(ious), torch.cat(areas, dim=1)
    # rounding at most; more than that only on the edges of objects, where blending and clamping change places
    assert differences.mean() < 0.6
    assert (differences > 4).float().mean() < 0.01
    assert ious[areas[0] >= 25].min() > (0.99 if as_rle else 0.8)
    assert ious[areas[0] >= 25].mean() > 0.96
    assert areas[1].sum() / areas[0].sum() == pytest.approx(1, abs=0.01)


def statistics(sample):
    """Numbers that describe a sample: how many objects stay, their sizes and places, masks and colours."""
    boxes = sample["boxes"] / SIZE
    sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    image = sample["image"].float()
    return {
        "objects kept": torch.tensor([float(len(boxes))]),
        "crowds kept": sample["is_crowd"].sum()[None].float(),
        "widths": sides[:, 0],
        "heights": sides[:, 1],
        "across": centres[:, 0],
        "down": centres[:, 1],
        "mask shares": sample["masks"].flatten(1).float().mean(dim=1),
        **{f"mean of {name}": channel.mean()[None] for name, channel in zip("rgb", image, strict=True)},
        "contrast": image.std()[None],
        "colourfulness": (image.amax(dim=0) - image.amin(dim=0)).mean()[None],
    }


def largest_distance(first, second):
    """Kolmogorov and Smirnov's distance of two samples: the largest between their distribution functions."""
    values = torch.cat([first, second]).sort().values
    below = [torch.searchsorted(one.sort().values, values, right=True) / len(one) for one in (first, second)]
    return (below[0] - below[1]).abs().max().item()


def test_samples_agree_in_distribution():
    """With seeds of their own: sizes, places, colours, kept objects. A limit holds by chance in all but 1 of 10,000."""
    found = {}
    for number in range(400):
        for way, sample in zip(
            ("reference", "made"), both(number % 50, number, other_seed=10_000 + number), strict=True
        ):
            for name, values in statistics(sample).items():
                found.setdefault(name, {}).setdefault(way, []).append(values)
    for name, ways in found.items():
        first, second = torch.cat(ways["reference"]), torch.cat(ways["made"])
        # objects of one image move together, so that their number says too much: 400 samples stand for each way
        limit = 2.23 * (2 / min(400, len(first), len(second))) ** 0.5
        assert largest_distance(first, second) < limit, name
        assert first.mean().item() == pytest.approx(second.mean().item(), abs=4 * first.std().item() / 400**0.5), name
