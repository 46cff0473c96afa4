"""Detection, masks and run lengths against the simple path, to the bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.postprocess import make_scene
from jobs.bench.release_path import simple_detect, simple_masks, simple_rles
from yolact.config import CONFIGS, NmsConfig
from yolact.geometry.masks import crop_regions, mask_logits
from yolact.geometry.rle import encode_mask_logits
from yolact.inference.detections import DetectionRules
from yolact.inference.postprocess import detect
from yolact.network.model import RawPredictions

SMALL = replace(CONFIGS["yolact_resnet50"], input_size=160)


def own_rles(raw, found, height, width):
    logits = mask_logits(raw.prototypes[0], found.coefficients)
    return encode_mask_logits(logits, crop_regions(found.boxes_relative, *logits.shape[1:]), height, width)


def assert_same(raw, anchors, nms_config, threshold, height, width):
    found = detect(raw, 0, anchors, DetectionRules(nms_config, threshold))
    expected = simple_detect(raw, 0, anchors, nms_config, threshold)
    for own, simple in zip(found, expected, strict=True):
        assert torch.equal(own, simple)
    rles, areas = own_rles(raw, found, height, width)
    masks = simple_masks(raw.prototypes[0], expected, height, width, torch.float64)
    assert rles == simple_rles(masks)
    assert areas.tolist() == masks.sum(dim=(1, 2)).tolist()
    return len(rles)


@pytest.mark.compute
@pytest.mark.parametrize("instances", [100, 10])
def test_an_image_of_many_and_one_of_few(instances):
    config = CONFIGS["yolact_resnet50"]
    raw, anchors = make_scene(config, instances)
    assert raw.class_logits.shape == (1, 19248, 81)
    assert raw.prototypes.shape == (1, 32, 138, 138)
    assert assert_same(raw, anchors, config.nms, 0.15, 480, 640) == instances


@pytest.mark.compute
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 0.5, 3.0, 12.0]),
    floor=st.sampled_from([0.0, 0.05, 0.5]),
    threshold=st.sampled_from([0.0, 0.15, 0.9]),
    top_k=st.sampled_from([3, 200]),
    max_detections=st.sampled_from([1, 20, 100]),
    size=st.sampled_from([(48, 64), (33, 90), (7, 5)]),
)
def test_any_predictions(seed, spread, floor, threshold, top_k, max_detections, size):
    """Nothing, everything, ties, saturated and undecided values; every anchor a candidate, or none."""
    rng = torch.Generator().manual_seed(seed)
    count, classes, prototypes = 300, 5, 4
    logits = spread * torch.randn(count, classes + 1, generator=rng)
    if seed % 3 == 0:
        logits = logits.round()
    raw = RawPredictions(
        torch.randn(1, count, 4, generator=rng),
        logits[None],
        torch.tanh(torch.randn(1, count, prototypes, generator=rng)),
        (spread * torch.randn(1, prototypes, 12, 12, generator=rng)).relu(),
        None,
    )
    corner = torch.rand(count, 2, generator=rng)
    anchors = torch.cat([corner, 0.05 + 0.4 * torch.rand(count, 2, generator=rng)], dim=1)
    nms_config = NmsConfig(score_floor=floor, top_k=top_k, max_detections=max_detections)
    assert_same(raw, anchors, nms_config, threshold, *size)


def test_predictions_that_are_not_numbers_are_nothing():
    raw, anchors = make_scene(SMALL, 5)
    raw.class_logits[0, ::2] = torch.nan
    found = detect(raw, 0, anchors, DetectionRules(SMALL.nms, 0.15))
    assert torch.isfinite(found.scores).all()
    nothing = raw._replace(class_logits=raw.class_logits * torch.nan)
    assert detect(nothing, 0, anchors, DetectionRules(SMALL.nms)).scores.numel() == 0
