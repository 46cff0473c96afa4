"""Where training starts from, and what it says about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.models import official_stand_in, tiny_training_config

from yolact.config import CONFIGS
from yolact.network.model import build_yolact
from yolact.training.losses import YolactWithLoss
from yolact.training.optimisation import freeze_batch_norm
from yolact.weights.checkpoint import save_checkpoint
from yolact.weights.initial import initialise

pytestmark = pytest.mark.compute

TINY = tiny_training_config(fpn_channels=8, head_channels=8, protonet_channels=8, num_prototypes=4)


def test_another_class_count_re_makes_the_class_layer_alone(tmp_path):
    source = build_yolact(TINY)
    save_checkpoint(source, tmp_path / "two.safetensors")
    model = build_yolact(replace(TINY, class_names=("x", "y", "z")))
    taken = initialise(model, tmp_path / "two.safetensors")
    assert taken.remade == ("head.class_layer.weight", "head.class_layer.bias", "semantic.weight", "semantic.bias")
    assert taken.missing == taken.left_out == ()
    assert torch.equal(model.head.box_layer.weight, source.head.box_layer.weight)
    assert "4 re-made (head.class_layer.weight, head.class_layer.bias, semantic.weight" in taken.summary()


def test_parts_that_only_one_side_has_are_told(tmp_path):
    save_checkpoint(build_yolact(TINY), tmp_path / "with.safetensors")
    without = initialise(build_yolact(replace(TINY, semantic_branch=False)), tmp_path / "with.safetensors")
    assert without.left_out == ("semantic.bias", "semantic.weight")
    save_checkpoint(build_yolact(replace(TINY, semantic_branch=False)), tmp_path / "less.safetensors")
    more = initialise(build_yolact(TINY), tmp_path / "less.safetensors")
    assert more.missing == ("semantic.weight", "semantic.bias")


@pytest.mark.parametrize("prefix", ["", "features."])
def test_backbone_state_dicts_fill_the_backbone(tmp_path, prefix):
    source = build_yolact(TINY).backbone.features.state_dict()
    torch.save({prefix + name: tensor for name, tensor in source.items()}, tmp_path / "features.pth")
    model = build_yolact(TINY)
    taken = initialise(model, tmp_path / "features.pth")
    assert torch.equal(model.backbone.features[0][0].weight, source["0.0.weight"])
    assert all(name.startswith("backbone.") for name in taken.loaded)
    assert "head.class_layer.weight" in taken.missing


def test_a_configs_own_weights_go_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_WEIGHTS", str(tmp_path))
    official = official_stand_in("yolact_resnet50", tmp_path)
    official.rename(tmp_path / CONFIGS["yolact_resnet50"].official.filename)
    model = build_yolact(replace(CONFIGS["yolact_resnet50"], input_size=138))
    taken = initialise(model, "yolact_resnet50")
    assert len(taken.loaded) > 300
    assert taken.remade == taken.missing == taken.left_out == ()


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="not those of a mobilenetv2 backbone"):
        initialise(build_yolact(TINY), tmp_path / "resnet.pth")


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.pth"):
        initialise(build_yolact(TINY), tmp_path / "gone.pth")


def test_an_official_file_with_another_class_count_says_what_it_re_made_and_learns(tmp_path):
    official = official_stand_in("yolact_resnet50", tmp_path)
    config = replace(CONFIGS["yolact_resnet50"], class_names=("x", "y", "z"), input_size=138, official=None)
    model = build_yolact(config)
    taken = initialise(model, official)
    classes = ("head.class_layer.weight", "head.class_layer.bias")
    assert taken.remade == (*classes, "semantic.weight", "semantic.bias")
    assert taken.missing == taken.left_out == ()
    target = {
        "boxes": torch.tensor([[20.0, 20.0, 90.0, 80.0]]),
        "labels": torch.tensor([2]),
        "masks": torch.ones(1, 138, 138, dtype=torch.bool),
        "is_crowd": torch.tensor([False]),
    }
    freeze_batch_norm(model)
    losses = YolactWithLoss(model)(torch.zeros(1, 3, 138, 138), [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert model.head.class_layer.weight.grad.norm() > 0
