"""Post-processing of a whole batch, as on GPUs: the same bits as image by image, and few kernels and waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from support.gpu_counter import GpuCounter
from support.models import tiny_config

from benchmarks.postprocess import make_scene
from yolact.config import CONFIGS, YolactConfig
from yolact.geometry import batch_outlines
from yolact.geometry.outlines import sides_in_tensors
from yolact.images.network_input import batch_input, network_input
from yolact.images.prepare import PreparedImage, prepare_image
from yolact.inference.detections import Detections
from yolact.inference.predictor import Predictor
from yolact.network.model import RawPredictions, build_yolact

#: for 16 images with 10 instances each. Image by image a GPU made 5,216 launches and 449 waits for them
MOST_KERNELS, MOST_WAITS = 435, 4
SIZES = ((480, 640), (37, 1500), (1200, 90), (64, 64))


def raw_of(config: YolactConfig, instances: tuple[int, ...]) -> RawPredictions:
    """A batch of scenes with so many instances each."""
    scenes = [make_scene(config, count, seed=seed)[0] for seed, count in enumerate(instances)]
    return RawPredictions(*(torch.cat(parts) for parts in zip(*[scene[:4] for scene in scenes], strict=True)), None)


def images_of(config: YolactConfig, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[PreparedImage]:
    rng = np.random.default_rng(0)
    return [prepare_image(rng.integers(0, 256, (*size, 3), np.uint8), config.input_size) for size in sizes]


def both_ways(
    predictor: Predictor, raw: RawPredictions, images: list[PreparedImage]
) -> tuple[list[Detections], list[Detections]]:
    found = []
    for predictor._in_batches in (False, True):
        found.append(predictor.postprocess(raw, images))
    return found[0], found[1]


def check_same(found: list[Detections], expected: list[Detections]) -> None:
    """The same bits, but for masks: a product of matrices may round by the last bit where its shape is another one."""
    for one, other in zip(found, expected, strict=True):
        for name in ("boxes", "scores", "labels"):
            value, wanted = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(value, wanted, err_msg=name)
            assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
        assert (one.mask_scores is None) == (other.mask_scores is None)
        if one.mask_scores is not None and other.mask_scores is not None:
            np.testing.assert_allclose(one.mask_scores, other.mask_scores, rtol=1e-4)
        assert one.areas.dtype == other.areas.dtype
        np.testing.assert_allclose(one.areas, other.areas, rtol=1e-4, atol=2)
        if len(one):
            ious = coco_mask.iou(one.masks, other.masks, [0] * len(other)).diagonal()
            assert (ious[other.areas > 0] > 0.999).all()
            assert list(coco_mask.area(one.masks)) == list(one.areas)
        assert (one.height, one.width) == (other.height, other.width)


@pytest.mark.compute
@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.6, 1.0])
@pytest.mark.parametrize("nms", ["fast", "fast-cross-class", "standard"])
def test_a_batch_gives_what_its_images_give(nms, threshold, limit):
    config = CONFIGS["yolact_resnet50"]
    predictor = Predictor(
        build_yolact(config), "cpu", nms=nms, score_threshold=threshold, max_detections=limit, batch_size=4
    )
    raw, images = raw_of(config, (10, 100, 1, 60)), images_of(config)
    for some in (images, images[:2]):  # the rest of the second batch is blank images
        expected, found = both_ways(predictor, raw, some)
        assert sum(map(len, expected)) > 0 or threshold == 1.0
        check_same(found, expected)


@pytest.mark.compute
@pytest.mark.parametrize("changes", [{"mask_rescoring": True}, {"crop_masks": False}])
def test_rescored_and_uncropped_masks(changes):
    config = replace(CONFIGS["yolact_resnet50"], **changes)
    predictor = Predictor(build_yolact(config), "cpu", batch_size=4)
    expected, found = both_ways(predictor, raw_of(config, (3, 1, 12, 5)), images_of(config))
    assert (expected[0].mask_scores is not None) == ("mask_rescoring" in changes)
    check_same(found, expected)


@pytest.mark.compute
def test_an_image_with_more_candidates_than_the_fixed_number_is_found_by_itself():
    """90 instances of one class with a hundred better boxes around each: a limit of pairs cannot settle it."""
    config = CONFIGS["yolact_resnet50"]
    raw = raw_of(config, (100, 3))
    raw.class_logits[0, :, 0] -= 6  # thousands of candidates above the threshold
    predictor = Predictor(build_yolact(config), "cpu", batch_size=2, score_threshold=0.0)
    expected, found = both_ways(predictor, raw, images_of(config)[:2])
    check_same(found, expected)


@pytest.mark.compute
def test_equal_scores_stand_in_one_order():
    config = CONFIGS["yolact_resnet50"]
    raw = raw_of(config, (40, 40))
    best, label = raw.class_logits[..., 1:].max(dim=2, keepdim=True)
    few = (best - raw.class_logits[..., :1]).round()  # of each anchor one class, and few different scores
    raw.class_logits[:] = -9
    raw.class_logits[..., 0] = 0
    raw.class_logits.scatter_(2, label + 1, few)
    for nms in ("fast", "fast-cross-class"):
        predictor = Predictor(build_yolact(config), "cpu", batch_size=2, nms=nms)
        expected, found = both_ways(predictor, raw, images_of(config)[:2])
        assert len(np.unique(expected[0].scores)) < len(expected[0])
        check_same(found, expected)


@pytest.mark.compute
def test_not_a_number_is_no_detection():
    config = CONFIGS["yolact_resnet50"]
    raw = raw_of(config, (10, 10))
    raw.class_logits[0, ::2] = torch.nan
    predictor = Predictor(build_yolact(config), "cpu", batch_size=2)
    expected, found = both_ways(predictor, raw, images_of(config)[:2])
    assert 0 < len(expected[0]) <= 10
    check_same(found, expected)


@pytest.mark.compute
def test_an_outline_that_rounding_left_open_is_computed_image_by_image(monkeypatch):
    config = CONFIGS["yolact_resnet50"]
    predictor = Predictor(build_yolact(config), "cpu", batch_size=2)
    raw, images = raw_of(config, (3, 5)), images_of(config)[:2]
    expected, _ = both_ways(predictor, raw, images)
    exact = batch_outlines._crossings

    def open_outline(*arguments):
        rows, _ = exact(*arguments)
        return rows + 1, torch.tensor(False)

    monkeypatch.setattr(batch_outlines, "_crossings", open_outline)
    check_same(predictor.postprocess(raw, images), expected)


@pytest.mark.compute
def test_kernels_and_waits_of_a_batch_of_16(monkeypatch):
    monkeypatch.setattr(batch_outlines, "sides_of_half", sides_in_tensors)  # a CPU does it mask by mask
    config = CONFIGS["yolact_resnet50"]
    predictor = Predictor(build_yolact(config), "cpu", batch_size=16)
    predictor._in_batches = True
    raw, images = raw_of(config, (10,) * 16), images_of(config, SIZES * 4)
    predictor.postprocess(raw, images)  # fills the caches of positions
    with torch.inference_mode(), GpuCounter() as counter:
        predictor.postprocess(raw, images)
    assert counter.kernels.total() <= MOST_KERNELS, counter.kernels
    # `numpy` is the copy of the results
    assert counter.waits.total() <= MOST_WAITS, counter.waits
    with torch.inference_mode(), GpuCounter() as counter:
        batch_input(images, config, torch.device("cpu"), 16)
    assert counter.kernels.total() <= 40, counter.kernels
    # `numpy` is the staging memory on the host
    assert set(counter.waits) <= {"numpy"}


def test_the_counter_counts():
    values = torch.arange(6.0)
    with GpuCounter() as counter:
        assert values.sum().item() == 15
        assert values[values > 3].tolist() == [4, 5]
        values.view(2, 3).nonzero()
    assert counter.waits == {"item": 1, "tolist": 1, "nonzero": 1, "mask as index": 1}
    assert counter.kernels["sum"] == counter.kernels["gt"] == counter.kernels["index"] == 1


@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_input_of_a_batch_has_the_bits_of_its_images(count):
    config = tiny_config()
    images = images_of(config)[:count]
    found = batch_input(images, config, torch.device("cpu"), 5)
    assert found.shape == (5, 3, config.input_size, config.input_size)
    assert not found[count:].any()
    for one, image in zip(found, images, strict=False):
        assert torch.equal(one, network_input(image, config))


def test_an_image_prepared_for_another_size_is_refused():
    config = tiny_config()
    image = prepare_image(np.zeros((4000, 10, 3), np.uint8), 550)
    with pytest.raises(ValueError, match="prepare the image with this config"):
        batch_input([image], config, torch.device("cpu"), 1)
