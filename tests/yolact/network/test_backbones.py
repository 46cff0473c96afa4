"""Backbones: which blocks are deformable, the deformable convolution itself, and ImageNet weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from yolact import build_yolact
from yolact.config import CONFIGS
from yolact.network.backbones import DarkNetBackbone, DeformableConv2d, ResNetBackbone, build_backbone
from yolact.weights.state import load_backbone_weights

pytestmark = pytest.mark.compute


def deformable_blocks(config):
    with torch.device("meta"):
        backbone = build_backbone(config.backbone, config.deformable)
    return [[index for index, b in enumerate(s) if isinstance(b.conv2, DeformableConv2d)] for s in backbone.layers]


def test_deformable_blocks_of_the_release():
    assert deformable_blocks(CONFIGS["yolact_plus_resnet50"]) == [[], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2]]
    assert deformable_blocks(CONFIGS["yolact_plus_base"]) == [[], [0, 3], [0, 3, 6, 9, 12, 15, 18, 21], [0]]
    assert deformable_blocks(CONFIGS["yolact_base"]) == [[], [], [], []]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_deformable_convolution_starts_as_a_plain_one_at_half_strength(stride):
    layer, x = DeformableConv2d(4, 6, stride), torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(layer(x), 0.5 * F.conv2d(x, layer.weight, stride=stride, padding=1))


def test_offsets_are_y_then_x_and_masks_come_last():
    layer, x = DeformableConv2d(1, 1), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 1, 1] = 1.0  # the centre tap alone: number 4
        layer.offset_mask.bias[8], layer.offset_mask.bias[9] = 2.0, -1.0
        layer.offset_mask.bias[18 + 4] = 50.0
    moved = layer(x)[0, 0]
    torch.testing.assert_close(moved[:6, 1:], x[0, 0, 2:, :7])


@pytest.mark.parametrize("name", ["resnet50", "darknet53", "mobilenetv2"])
def test_feature_maps(name):
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 70, 70))
    assert {level: f.shape[1] for level, f in features.items()} == dict(backbone.channels)
    assert {level: f.shape[2] for level, f in features.items()} == {2: 18, 3: 9, 4: 5, 5: 3}


def test_resnet_is_torchvisions():
    net = torchvision.models.resnet50().eval()
    model = build_yolact("yolact_resnet50").eval()
    load_backbone_weights(model, net.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = model.backbone(images)
        stem = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        expected = net.layer4(net.layer3(net.layer2(net.layer1(stem))))
    assert torch.equal(features[5], expected)


def test_imagenet_weights_of_a_deformable_backbone_leave_its_offsets():
    with torch.device("meta"):
        state = ResNetBackbone("resnet50").state_dict()
    state = {name.replace("layers.0", "layer1"): torch.ones(tensor.shape) for name, tensor in state.items()}
    state = {name.replace("layers.1", "layer2").replace("layers.2", "layer3"): t for name, t in state.items()}
    state = {name.replace("layers.3", "layer4"): tensor for name, tensor in state.items()}
    model = build_yolact("yolact_plus_resnet50")
    load_backbone_weights(model, state)
    assert model.backbone.layers[1][0].conv2.weight.eq(1).all()
    assert model.backbone.layers[1][0].conv2.offset_mask.weight.eq(0).all()


def test_torchvisions_mobilenet_loads():
    state = torchvision.models.mobilenet_v2().features.state_dict()
    model = build_yolact("yolact_mobilenetv2")
    load_backbone_weights(model, state)
    own = model.backbone.features.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_weights_of_another_backbone_are_refused():
    model = build_yolact("yolact_mobilenetv2")
    with pytest.raises(ValueError, match="not those of a mobilenetv2 backbone"):
        load_backbone_weights(model, torchvision.models.resnet50().state_dict())


def test_darknet_has_the_layers_of_the_paper():
    with torch.device("meta"):
        backbone = DarkNetBackbone()
    assert [len(stage) - 1 for stage in backbone.layers] == [1, 2, 8, 8, 4]
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 52  # and the classifier makes 53


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_deformable_convolution_runs_under_autocast(dtype):
    layer, x = DeformableConv2d(4, 6), torch.randn(1, 4, 9, 9)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(layer(x.to(dtype)), layer(x), rtol=0, atol=0.05)
