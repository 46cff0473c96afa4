"""A score threshold for each class: what is left, in both ways of post-processing, and that nothing else changes."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import tiny_config

from benchmarks.postprocess import make_scene
from yolact.config import NmsConfig, YolactConfig
from yolact.images.prepare import PreparedImage, prepare_image
from yolact.inference.detections import DetectionRules, Detections
from yolact.inference.postprocess import detect
from yolact.inference.predictor import Predictor
from yolact.network.model import RawPredictions, build_yolact

KINDS = ["fast", "fast-cross-class", "standard"]
#: the first class is dropped, the second has a threshold above the others
THRESHOLDS = (math.inf, 0.5, 0.2)


def config_of(**settings: int) -> YolactConfig:
    return tiny_config(nms=NmsConfig(**settings))


def scene(config: YolactConfig, count: int = 60) -> tuple[RawPredictions, list[PreparedImage]]:
    """Two images whose objects are of all classes, and whose scores lie anywhere."""
    scenes = [make_scene(config, count, seed=seed)[0] for seed in (0, 1)]
    raw = RawPredictions(*(torch.cat(parts) for parts in zip(*[one[:4] for one in scenes], strict=True)), None)
    noise = torch.randn(raw.class_logits.shape, generator=torch.Generator().manual_seed(0))
    pixels = np.zeros((80, 120, 3), np.uint8)
    return raw._replace(class_logits=raw.class_logits + noise), [prepare_image(pixels, config.input_size)] * 2


def values(found: Detections) -> list[tuple[object, ...]]:
    masks = [mask["counts"] for mask in found.masks]
    return list(zip(found.labels.tolist(), found.scores.tolist(), map(tuple, found.boxes.tolist()), masks, strict=True))


@pytest.mark.compute
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("nms", KINDS)
def test_the_detections_are_those_above_the_threshold_of_their_class(nms, in_batches):
    # so many that no limit hides a detection
    config = config_of(max_detections=450, top_k=400)
    raw, images = scene(config)
    model = build_yolact(config)
    plain = Predictor(model, "cpu", nms=nms, score_threshold=0.2, batch_size=2)
    chosen = Predictor(model, "cpu", nms=nms, score_threshold=THRESHOLDS, batch_size=2)
    plain._in_batches = chosen._in_batches = in_batches
    for everything, found in zip(plain.postprocess(raw, images), chosen.postprocess(raw, images), strict=True):
        expected = [one for one in values(everything) if one[1] > THRESHOLDS[one[0]]]
        assert {one[0] for one in expected} == {1, 2}
        assert len(expected) < len(everything)
        assert [one[:3] for one in values(found)] == [one[:3] for one in expected]


@pytest.mark.parametrize("nms", KINDS)
def test_a_dropped_class_takes_no_place_and_costs_no_mask(nms):
    config = config_of(max_detections=10)
    raw, _ = scene(config)
    anchors = build_yolact(config).anchors
    settings = replace(config.nms, kind=nms)
    everything = detect(raw, 0, anchors, DetectionRules(settings, 0.05, 10))
    assert 0 in everything.labels
    rules = DetectionRules(settings, 0.05, 10, (math.inf, 0.05, 0.05))
    found = detect(raw, 0, anchors, rules)
    # masks are made of what `detect` gives
    assert len(found.labels) == 10
    assert 0 not in found.labels


@pytest.mark.compute
@pytest.mark.parametrize("nms", KINDS)
def test_one_threshold_for_each_class_is_as_one_for_all(nms):
    config = config_of()
    raw, images = scene(config)
    model = build_yolact(config)
    one = Predictor(model, "cpu", nms=nms, score_threshold=0.3).postprocess(raw, images)
    each = Predictor(model, "cpu", nms=nms, score_threshold=(0.3, 0.3, 0.3)).postprocess(raw, images)
    assert [values(found) for found in each] == [values(found) for found in one]


def test_a_predictor_keeps_its_thresholds_when_it_travels():
    predictor = Predictor(build_yolact(tiny_config()), "cpu", score_threshold=THRESHOLDS)
    assert pickle.loads(pickle.dumps(predictor))._rules == predictor._rules


@pytest.mark.parametrize("given", [(0.1, 0.2), (math.inf,) * 3, (0.1, -1.0, 0.2), (math.nan, 0.1, 0.1)])
def test_thresholds_that_cannot_be(given):
    with pytest.raises(ValueError, match="score_threshold"):
        Predictor(build_yolact(tiny_config()), "cpu", score_threshold=given)
