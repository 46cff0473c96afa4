"""The losses and gradients of the original release, frozen as numbers in the development data."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_tools
from support.golden_cases import CASES
from support.shared_data import shared_path
from torch.nn import functional as F

from yolact.network.model import build_yolact
from yolact.training.losses import YolactWithLoss
from yolact.weights.official import convert_official, load_official_state

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def network_input(pixels, config):
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = F.interpolate(image, (config.input_size, config.input_size), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (config.mean, config.std))
    return (image - mean) / std


def golden_target(expected):
    targets, size = expected["train"]["targets"], expected["input_size"]
    rles = [{"size": [size, size], "counts": counts} for counts in targets["masks_rle_at_input_size"]]
    count, crowds = len(targets["labels"]), targets["num_crowds"]
    return {
        "boxes": torch.tensor(targets["boxes_relative"], dtype=torch.float64) * size,
        "labels": torch.tensor(targets["labels"]),
        "masks": torch.from_numpy(rle_tools.decode(rles).transpose(2, 0, 1).astype(bool)),
        "is_crowd": torch.arange(count) >= count - crowds,
    }


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_release(case):
    golden = shared_path("golden")
    expected = json.loads((golden / "cases" / case / "expected.json").read_text())
    if "train" not in expected:
        pytest.skip("a case without losses")
    shapes = json.loads((golden / "cases" / case / "state_dict.json").read_text())
    reference = runpy.run_path(str(golden / "reference_weights.py"))["reference_state_dict"]
    state = {
        name: torch.from_numpy(np.asarray(array)) for name, array in reference(shapes, expected["num_classes"]).items()
    }
    model = build_yolact(expected["config"])
    load_official_state(model, state, case)
    model.eval()  # batch norm frozen
    trainable = YolactWithLoss(model, max_masks_per_image=None)
    pixels = np.array(Image.open(golden / expected["photo"]).convert("RGB"))

    losses = trainable(network_input(pixels, model.config), [golden_target(expected)])
    sum(losses.values()).backward()

    wanted = expected["train"]["losses"]
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(wanted, rel=LOSS_TOLERANCE)
    norms = expected["train"]["gradient_norms"]
    parameters = dict(model.named_parameters())
    measured = {}
    for name in norms:
        (ours,) = convert_official({name: state[name]})
        measured[name] = parameters[ours].grad.norm().item()
    assert measured == pytest.approx(norms, rel=GRADIENT_TOLERANCE, abs=1e-6)
