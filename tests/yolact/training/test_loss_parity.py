"""The losses and gradients of the original release, frozen in the parity cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pycocotools import mask as rle_tools
from support.parity_cases import CASES, OWN
from torch.nn import functional as F

from yolact.config import get_config
from yolact.network.model import build_yolact
from yolact.training.losses import YolactWithLoss
from yolact.weights.official import convert_official, load_official_state

pytestmark = pytest.mark.compute

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def network_input(pixels, config):
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = F.interpolate(image, (config.input_size, config.input_size), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (config.mean, config.std))
    return (image - mean) / std


def stated_target(train, size):
    """The case's targets as the training code takes them."""
    targets = train["targets"]
    rles = [{"size": [size, size], "counts": counts} for counts in targets["masks_rle_at_input_size"]]
    count, crowds = len(targets["labels"]), targets["num_crowds"]
    return {
        "boxes": torch.tensor(targets["boxes_relative"], dtype=torch.float64) * size,
        "labels": torch.tensor(targets["labels"]),
        "masks": torch.from_numpy(rle_tools.decode(rles).transpose(2, 0, 1).astype(bool)),
        "is_crowd": torch.arange(count) >= count - crowds,
    }


def test_the_checkout_has_losses_with_a_crowd_and_with_mask_rescoring():
    own = {case.folder.name: case.train for case in CASES if case.photo_root == OWN and case.train}
    assert own["yolact_resnet50"]["targets"]["num_crowds"] == 1
    assert own["yolact_plus_resnet50"]["losses"]["mask_iou"] > 1


@pytest.mark.parametrize("case", [case for case in CASES if case.train], ids=lambda case: case.name)
def test_losses_and_gradients_are_those_of_the_release(case):
    state = case.state_dict()
    # no limit of masks, and so no random choice among them
    model = build_yolact(replace(get_config(case.expected["config"]), max_masks_per_image=10**6))
    load_official_state(model, dict(state), case.name)
    model.eval()  # batch norm frozen
    trainable = YolactWithLoss(model)
    target = stated_target(case.train, case.expected["input_size"])

    losses = trainable(network_input(case.photo, model.config), [target])
    sum(losses.values()).backward()

    wanted = case.train["losses"]
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(wanted, rel=LOSS_TOLERANCE)
    norms = case.train["gradient_norms"]
    parameters = dict(model.named_parameters())
    measured = {}
    for name in norms:
        (ours,) = convert_official({name: state[name]})
        measured[name] = parameters[ours].grad.norm().item()
    assert measured == pytest.approx(norms, rel=GRADIENT_TOLERANCE, abs=1e-6)
