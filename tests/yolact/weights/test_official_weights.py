"""The release's names and files: what loads, and what each wrong file is told."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from support.parity_cases import CASES

from yolact import build_yolact, load_weights
from yolact.config import CONFIGS
from yolact.weights.official import convert_official, is_official, load_official_state

pytestmark = pytest.mark.compute

#: the release's names beside the backbone, for every config
COMMON = {
    **{f"proto_net.{index}": f"protonet.before.{index}" for index in (0, 2, 4)},
    "proto_net.8": "protonet.after.0",
    "proto_net.10": "protonet.project",
    **{f"fpn.lat_layers.{5 - level}": f"fpn.lateral.{level}" for level in (5, 4, 3)},
    **{f"fpn.pred_layers.{5 - level}": f"fpn.output.{level}" for level in (5, 4, 3)},
    **{f"fpn.downsample_layers.{level - 6}": f"fpn.downsample.{level}" for level in (6, 7)},
    "prediction_layers.0.upfeature.0": "head.trunk.0",
    "prediction_layers.0.bbox_layer": "head.box_layer",
    "prediction_layers.0.conf_layer": "head.class_layer",
    "prediction_layers.0.mask_layer": "head.coefficient_layer",
    "semantic_seg_conv": "semantic",
}


def meta_model(config):
    with torch.device("meta"):
        return build_yolact(config)


def official_names_of_darknet():
    """Convolution and batch norm names of the release's DarkNet-53, by its structure."""
    pairs = ["backbone._preconv"]
    for stage, blocks in enumerate((1, 2, 8, 8, 4)):
        pairs.append(f"backbone.layers.{stage}.0")
        pairs += [f"backbone.layers.{stage}.{block}.conv{n}" for block in range(1, blocks + 1) for n in (1, 2)]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{pair}.0.weight" for pair in pairs] + [f"{pair}.1.{name}" for pair in pairs for name in norm]


def official_state(config):
    """A state dict in the release's names, without data."""
    reverse = {own: official for official, own in COMMON.items()}
    state = {}
    for name, tensor in meta_model(config).state_dict().items():
        layer, _, kind = name.rpartition(".")
        if name.startswith("backbone."):
            name = name.replace(".offset_mask.", ".conv_offset_mask.").replace("backbone.stem.", "backbone._preconv.")
        elif name.startswith("mask_scoring.layers."):
            name = name.replace("mask_scoring.layers.", "maskiou_net.maskiou_net.")
        else:
            name = f"{reverse[layer]}.{kind}"
        state[name] = tensor
    return state


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_releases_tables_of_names_and_shapes_fit_their_configs(case):
    state = convert_official({name: torch.empty(shape, device="meta") for name, shape in case.shapes.items()})
    own = meta_model(case.expected["config"]).state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {name: t.shape for name, t in own.items()}


def test_darknet_names():
    own = [name for name in meta_model("yolact_darknet53").state_dict() if name.startswith("backbone.")]
    empty = torch.empty(0)
    assert sorted(convert_official(dict.fromkeys(official_names_of_darknet(), empty))) == sorted(own)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ("yolact_mobilenetv2", "nuclei")])
def test_every_official_config_loads_its_own_state(name):
    model, state = meta_model(name), official_state(name)
    assert is_official(state)
    load_official_state(model, state, "a file")


def test_leftovers_of_old_versions_are_dropped_and_others_are_not():
    model, state = meta_model("yolact_resnet50"), official_state("yolact_resnet50")
    old = {"backbone.layer1.0.conv1.weight": torch.zeros(1), "fpn.downsample_layers.2.bias": torch.zeros(256)}
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    before_counters = {key: tensor for key, tensor in state.items() if key not in counters}
    load_official_state(model, {**before_counters, **old}, "a file")
    with pytest.raises(ValueError, match=r"a file does not fit config 'yolact_resnet50': extra\.weight is not part"):
        load_official_state(model, {**state, "extra.weight": torch.zeros(1)}, "a file")


def test_a_missing_tensor_is_named():
    state = official_state("yolact_resnet50")
    del state["proto_net.10.bias"]
    with pytest.raises(ValueError, match=r"does not fit config 'yolact_resnet50': protonet\.project\.bias is missing"):
        load_official_state(meta_model("yolact_resnet50"), state, "a file")


@pytest.mark.parametrize(
    ("file", "config", "message"),
    [
        ("yolact_resnet50", "yolact_base", "looks like YOLACT with resnet50.*but .*'yolact_base'.*resnet101"),
        ("yolact_plus_base", "yolact_base", r"looks like YOLACT\+\+ with resnet101.*it fits yolact_plus_base"),
        ("yolact_resnet50_pascal", "yolact_resnet50", "20 classes.*80 classes.*it fits yolact_resnet50_pascal"),
        ("yolact_darknet53", "yolact_resnet50", "looks like YOLACT with darknet53.*it fits yolact_darknet53"),
        ("yolact_resnet50", "yolact_mobilenetv2", "looks like YOLACT with resnet50"),
    ],
)
def test_the_wrong_config_is_told_what_the_file_looks_like(file, config, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_official_state(meta_model(config), official_state(file), "weights.pth")
    assert "\n" not in str(caught.value)


def test_files_with_the_same_tensors_are_told_apart_by_their_published_name():
    state = official_state("yolact_base")
    with pytest.raises(ValueError, match="published file of config 'yolact_im700'"):
        load_official_state(meta_model("yolact_base"), state, "s3://weights/yolact_im700_54_800000.pth")
    load_official_state(meta_model("yolact_im700"), state, "yolact_im700_54_800000.pth")
    other = replace(CONFIGS["yolact_base"], name="mine", input_size=700)
    load_official_state(meta_model(other), state, "yolact_im700_54_800000.pth")


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch harm-done",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_code_is_not_run(folder, legacy):
    torch.save({"a": Payload()}, "code.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"code\.pth holds Python objects or code besides tensors") as caught:
        load_weights(meta_model("yolact_resnet50"), "code.pth")
    assert "\n" not in str(caught.value)
    assert not (folder / "harm-done").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(folder, legacy, share):
    torch.save({"a": torch.ones(1000)}, "whole.pth", _use_new_zipfile_serialization=not legacy)
    data = (folder / "whole.pth").read_bytes()
    (folder / "part.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"part\.pth is truncated or not a PyTorch file") as caught:
        load_weights(meta_model("yolact_resnet50"), "part.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(2)}, "not a YOLACT checkpoint"),
        ({"epoch": 3, "state_dict": {}}, "not a state dict"),
        ([torch.ones(2)], "not a state dict"),
    ],
)
def test_other_pytorch_files(folder, content, message):
    torch.save(content, "other.pth")
    with pytest.raises(ValueError, match=message):
        load_weights(meta_model("yolact_resnet50"), "other.pth")


def test_other_files(folder):
    (folder / "page.pth").write_text("<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(ValueError, match="truncated or not a PyTorch file"):
        load_weights(meta_model("yolact_resnet50"), "page.pth")
    for missing in ("nowhere.pth", f"file://{folder}/nowhere.pth", "memory://nowhere.pth"):
        with pytest.raises(ValueError, match=r"no file at .*nowhere"):
            load_weights(meta_model("yolact_resnet50"), missing)
    with pytest.raises(ValueError, match="cannot read gopher://x"):
        load_weights(meta_model("yolact_resnet50"), "gopher://x")
