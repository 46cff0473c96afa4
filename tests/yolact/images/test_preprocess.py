"""The pixel seam: what is kept of an image, and that the network sees the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from yolact.config import CONFIGS
from yolact.images.network_input import network_input
from yolact.images.prepare import PreparedImage, prepare_image

sides = st.integers(1, 90)


def config_of_size(size):
    return replace(CONFIGS["yolact_base"], input_size=size)


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None)
@given(sides, sides, st.integers(1, 24))
def test_the_network_input_has_the_same_bits_with_and_without_reduction(height, width, size):
    image, config = random_image(height, width), config_of_size(size)
    prepared = prepare_image(image, size)
    assert prepared.pixels.shape == (min(height, 2 * size), min(width, 2 * size), 3)
    assert (prepared.height, prepared.width) == (height, width)
    whole = PreparedImage(image, height, width)
    assert torch.equal(network_input(prepared, config), network_input(whole, config))


@pytest.mark.parametrize(("height", "width"), [(9000, 3), (3, 20_011), (1, 1), (4000, 3000)])
def test_large_and_tiny_images(height, width):
    image, config = random_image(height, width), config_of_size(55)
    expected = network_input(PreparedImage(image, height, width), config)
    assert torch.equal(network_input(prepare_image(image, 55), config), expected)


@settings(deadline=None)
@given(sides, sides, st.integers(1, 40))
def test_resizing_is_pytorchs_interpolate(height, width, size):
    image, config = random_image(height, width), config_of_size(size)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)[0]
    expected = (resized - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[:, None, None]
    torch.testing.assert_close(network_input(prepare_image(image, size), config), expected, rtol=0, atol=1e-4)


def test_normalisation_by_hand():
    image = np.full((4, 4, 3), (255, 0, 51), np.uint8)
    darknet = network_input(prepare_image(image, 2), replace(CONFIGS["yolact_darknet53"], input_size=2))
    assert darknet[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    base = network_input(prepare_image(image, 2), config_of_size(2))
    assert base[:, 1, 1].tolist() == pytest.approx([131.32 / 58.40, -116.78 / 57.12, -52.94 / 57.38], rel=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8, not float32"),
        ([[0, 0, 0]], "uint8, not list"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "not be empty"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        prepare_image(image, 550)


def test_an_image_prepared_for_another_size_is_refused():
    prepared = prepare_image(random_image(100, 100), 20)
    with pytest.raises(ValueError, match="side of 100 pixels was prepared to 40, which is not for input size 30"):
        network_input(prepared, config_of_size(30))


def test_views_and_read_only_arrays_are_taken():
    image = random_image(30, 20)
    flipped = image[::-1, ::-1]
    assert np.array_equal(prepare_image(flipped, 550).pixels, flipped)
    read_only = image.copy()
    read_only.flags.writeable = False
    assert network_input(prepare_image(read_only, 10), config_of_size(10)).shape == (3, 10, 10)
