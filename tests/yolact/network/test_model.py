"""The network gives the right shapes for every config. Other values in a config make another variant."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from yolact import RawPredictions, build_yolact
from yolact.config import CONFIGS, ActivationName, AnchorConfig, BackboneName
from yolact.network.anchors import make_anchors
from yolact.network.heads import MaskScoringNet

pytestmark = pytest.mark.compute

SMALL = replace(CONFIGS["yolact_mobilenetv2"], name="small", input_size=64, class_names=("a", "b"))


def on_meta(config):
    with torch.device("meta"):
        return build_yolact(config).eval()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_output_shapes_of_every_config(config):
    model = on_meta(config)
    size = config.input_size
    raw = model(torch.empty(2, 3, size, size, device="meta"))
    anchors, classes, prototypes = len(make_anchors(config)), config.num_classes, config.num_prototypes
    assert isinstance(raw, RawPredictions)
    assert raw.box_deltas.shape == (2, anchors, 4)
    assert raw.class_logits.shape == (2, anchors, classes + 1)
    assert raw.mask_coefficients.shape == (2, anchors, prototypes)
    assert raw.prototypes.shape == (2, prototypes, config.prototype_size, config.prototype_size)
    assert model.anchors.shape == (anchors, 4)
    if config.semantic_branch:
        half = config.prototype_size // 2
        assert raw.semantic_logits.shape == (2, classes, half, half)
    assert (model.mask_scoring is not None) == config.mask_rescoring


@pytest.mark.parametrize(
    "change",
    [
        {"num_prototypes": 8},
        {"semantic_branch": False},
        {"prototype_activation": "none"},
        {"protonet_level": 2},
        {"protonet_depth": (0, 0)},
        {"head_depth": 0},
        {"head_depth": 2, "head_channels": 24},
        {"head_levels": (2, 3, 4), "anchors": AnchorConfig(((8.0, 12.0), (24.0, 32.0), (64.0, 90.0)), (1.0,))},
        {"head_levels": (4,), "anchors": AnchorConfig(((24.0,),)), "protonet_level": 4},
    ],
    ids=str,
)
def test_variants_train_every_parameter(change):
    """An ablation is a value; no parameter is left without a gradient, which distributed training would refuse."""
    config = replace(SMALL, **change)
    model = build_yolact(config).eval()
    raw = model(torch.randn(1, 3, 64, 64))
    assert raw.box_deltas.shape[1] == len(model.anchors)
    assert raw.prototypes.shape[1:] == (config.num_prototypes, config.prototype_size, config.prototype_size)
    assert (raw.semantic_logits is None) == (not config.semantic_branch)
    sum(part.square().mean() for part in raw if part is not None).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_inference_is_forward_without_the_semantic_branch():
    model = build_yolact(SMALL).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        full, inferred = model(images), model.infer(images)
    assert inferred.semantic_logits is None
    assert all(torch.equal(a, b) for a, b in zip(full[:4], inferred[:4], strict=True))


def test_every_name_that_a_config_may_use_has_its_part():
    for activation in get_args(ActivationName):
        on_meta(replace(SMALL, prototype_activation=activation))
    for backbone in get_args(BackboneName):
        on_meta(replace(SMALL, backbone=backbone))


def test_ranges():
    model = build_yolact(SMALL).eval()
    with torch.inference_mode():
        raw = model(3 * torch.randn(1, 3, 64, 64))
    assert raw.mask_coefficients.abs().max() <= 1
    assert raw.prototypes.min() >= 0


def test_the_mask_scoring_net():
    net = MaskScoringNet(5)
    assert net(torch.rand(3, 138, 138)).shape == (3, 5)
    assert net(torch.rand(2, 80, 80)).min() >= 0
    assert net(torch.zeros(0, 138, 138)).shape == (0, 5)


def test_building_touches_no_global_state():
    before = torch.get_default_dtype(), torch.backends.cudnn.benchmark, torch.get_num_threads()
    build_yolact(SMALL)
    assert (torch.get_default_dtype(), torch.backends.cudnn.benchmark, torch.get_num_threads()) == before


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown config 'yolact_vgg'"):
        build_yolact("yolact_vgg")
