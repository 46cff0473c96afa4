"""Configs as values: round trip, validation, and no torch on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from yolact.config import COCO_CLASSES, CONFIGS, PASCAL_CLASSES, AnchorConfig, YolactConfig, get_config
from yolact.network.anchors import make_anchors

BASE = CONFIGS["yolact_base"]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_json_round_trip(config):
    assert YolactConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_named():
    values = BASE.to_dict()
    with pytest.raises(ValueError, match="unknown key momentum in config"):
        YolactConfig.from_dict({**values, "momentum": 0.9})
    with pytest.raises(ValueError, match="unknown key ratio in anchors"):
        YolactConfig.from_dict({**values, "anchors": {"scales": [[1.0]], "ratio": [1.0]}})
    del values["backbone"]
    with pytest.raises(ValueError, match=r"incomplete.*backbone"):
        YolactConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg16"}, "backbone 'vgg16'"),
        ({"prototype_activation": "gelu"}, "prototype_activation 'gelu'"),
        ({"head_levels": (3, 4, 5)}, "3 head levels, but anchor scales for 5"),
        ({"head_levels": (1, 2, 3, 4, 5)}, "head_levels"),
        ({"protonet_level": 6}, "protonet_level"),
        ({"class_names": ("a", "a")}, "class names, each once"),
        ({"num_prototypes": 0}, "num_prototypes"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mask_rescoring": True, "input_size": 240}, "mask_rescoring .* 63 pixels or more, not 60"),
        ({"backbone": "darknet53", "deformable": ((0, 1),) * 4}, "deformable needs a ResNet"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BASE, **change)


@pytest.mark.parametrize("scales", [(), ((),), ((1.0,), (1.0, 2.0)), ((0.0,),)])
def test_anchor_scales_that_do_not_fit_are_refused(scales):
    with pytest.raises(ValueError):
        AnchorConfig(scales)


def test_the_release_in_numbers():
    assert len(COCO_CLASSES) == 80
    assert COCO_CLASSES[0] == "person"
    assert COCO_CLASSES[-1] == "toothbrush"
    assert len(PASCAL_CLASSES) == 20
    counts = {name: len(make_anchors(config)) for name, config in CONFIGS.items()}
    assert counts["yolact_base"] == counts["yolact_resnet50_pascal"] == counts["yolact_darknet53"] == 19_248
    assert counts["yolact_plus_base"] == counts["yolact_plus_resnet50"] == 57_744
    assert counts["yolact_im400"] == 10_077
    assert CONFIGS["yolact_im400"].anchors.scales == ((17,), (34,), (69,), (139,), (279,))
    assert CONFIGS["yolact_im700"].anchors.scales == ((30,), (61,), (122,), (244,), (488,))
    assert BASE.prototype_size == 138


def test_get_config():
    assert get_config("yolact_base") is BASE
    assert get_config(BASE) is BASE
    with pytest.raises(ValueError, match=r"unknown config 'yolact'.*yolact_base"):
        get_config("yolact")


def test_reading_configs_does_not_import_torch():
    code = "import sys, yolact.config, yolact.weights.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
