"""The numbers of the original release, frozen in the parity cases: input, raw outputs, detections, masks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from support.parity_cases import CASES, ParityCase

from yolact import Predictor, build_yolact, load_weights
from yolact.images.network_input import network_input
from yolact.images.prepare import prepare_image
from yolact.inference.precision import full_float32
from yolact.network.model import RawPredictions

pytestmark = pytest.mark.compute

RAW_TOLERANCE = 1e-4
VARIANTS = {"per_class": "fast", "cross_class": "fast-cross-class"}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request, tmp_path_factory):
    parity: ParityCase = request.param
    expected, state = parity.expected, parity.state_dict()
    for name, total in expected["weights_check"].items():
        assert state[name].double().sum().item() == pytest.approx(total, abs=1e-9), "NumPy's generator has changed"
    path = parity.save_state_dict(tmp_path_factory.mktemp("weights") / "stand_in.pth")
    model = build_yolact(expected["config"]).eval()
    load_weights(model, path)
    path.unlink()
    device = torch.device(request.config.getoption("device"))
    model.to(device)
    inputs = network_input(prepare_image(parity.photo, model.config.input_size), model.config, device)
    with torch.inference_mode(), full_float32():
        raw = RawPredictions(*(None if part is None else part.cpu() for part in model(inputs[None])))
    found = {
        variant: Predictor(model, device=device, nms=nms, score_threshold=0)([parity.photo])[0]
        for variant, nms in VARIANTS.items()
    }
    model, inputs = model.cpu(), inputs.cpu()
    return SimpleNamespace(
        parity=parity, expected=expected, arrays=parity.arrays, model=model, inputs=inputs, raw=raw, found=found
    )


def relative_error(value: torch.Tensor, expected: np.ndarray) -> float:
    assert value.shape == expected.shape
    return float(np.linalg.norm(value.numpy() - expected) / np.linalg.norm(expected))


def test_network_input(case):
    expected, step = case.parity.sampled("input")
    assert relative_error(case.inputs[:, ::step, ::step], expected) < RAW_TOLERANCE


def test_anchors(case):
    index = case.arrays["sample.anchor_index"]
    assert len(case.model.anchors) == case.expected["num_anchors"]
    np.testing.assert_allclose(case.model.anchors[index], case.arrays["raw.anchors"], rtol=1e-6, atol=1e-7)


def test_raw_outputs(case):
    index = case.arrays["sample.anchor_index"]
    height, width = case.expected["prototype_shape"][:2]
    assert case.raw.prototypes.shape[2:] == (height, width)
    outputs = {
        "box_regression": case.raw.box_deltas[0, index],
        "class_probabilities": case.raw.class_logits[0, index].softmax(-1),
        "coefficients": case.raw.mask_coefficients[0, index],
    }
    errors = {name: relative_error(value, case.arrays[f"raw.{name}"]) for name, value in outputs.items()}
    expected, step = case.parity.sampled("raw.prototypes")
    errors["prototypes"] = relative_error(case.raw.prototypes[0].permute(1, 2, 0)[::step, ::step], expected)
    assert max(errors.values()) < RAW_TOLERANCE, errors
    if "anchors_over_score_threshold" in case.expected:  # the larger set states this count too
        best = case.raw.class_logits[0].softmax(-1)[:, 1:].amax(1)
        over = int((best > case.model.config.nms.score_floor).sum())
        assert over == pytest.approx(case.expected["anchors_over_score_threshold"], rel=0.002)


@pytest.mark.parametrize("variant", VARIANTS)
def test_detections_and_masks(case, variant):
    found, expected = (
        case.found[variant],
        {name.removeprefix(f"{variant}."): value for name, value in case.arrays.items() if name.startswith(variant)},
    )
    count = len(expected["labels"])
    assert abs(len(found) - count) <= 0.01 * count
    common = min(len(found), count)
    np.testing.assert_allclose(found.scores[:common], expected["scores"][:common], atol=1e-4)

    # a near tie may swap neighbours, so every expected detection looks for its own
    scale = np.array([found.width, found.height] * 2)
    boxes = np.clip(np.sort(expected["boxes_relative"].reshape(-1, 2, 2), axis=1).reshape(-1, 4), 0, 1) * scale
    pairs = []
    for index in range(count):
        alike = (found.labels == expected["labels"][index]) & (abs(found.scores - expected["scores"][index]) < 1e-4)
        near = np.flatnonzero(alike & (abs(found.boxes - boxes[index]).max(axis=1) < 0.1))
        pairs += [(near[0], index)] if len(near) else []
    assert len(pairs) >= 0.98 * count
    mine, theirs = map(list, zip(*pairs, strict=True))

    assert abs(np.trunc(found.boxes[mine]) - np.clip(expected["boxes_pixel"][theirs], 0, scale)).max() <= 1
    if "mask_scores" in expected:
        np.testing.assert_allclose(found.mask_scores[mine], expected["mask_scores"][theirs], atol=1e-3)
    else:
        assert found.mask_scores is None

    size = case.expected["image_size_hw"]
    assert [found.height, found.width] == size
    counts = case.expected[f"{variant}.masks_rle"]
    truth = [{"size": size, "counts": counts[index].encode()} for index in theirs]
    masks = [found.masks[index] for index in mine]
    assert [int(area) for area in coco_mask.area(masks)] == list(found.areas[mine])
    ious = [
        float(coco_mask.iou([a], [b], [0])[0, 0]) if coco_mask.area([a, b]).any() else 1.0
        for a, b in zip(masks, truth, strict=True)
    ]
    assert np.mean(ious) >= 0.999
