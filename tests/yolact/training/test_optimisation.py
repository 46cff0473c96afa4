"""Optimisation: learning-rate schedule, batch-norm freezing, running average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yolact.training.optimisation import WeightAverage, build_optimizer, freeze_batch_norm, learning_rate_at


def paper(step):
    return learning_rate_at(step, peak=1e-3, max_steps=800_000, warmup_steps=500)


def test_the_papers_schedule():
    assert paper(0) == pytest.approx(1e-4)
    assert paper(250) == pytest.approx(5.5e-4)
    assert paper(500) == paper(279_999) == pytest.approx(1e-3)
    for step, rate in ((280_000, 1e-4), (600_000, 1e-5), (700_000, 1e-6), (750_000, 1e-7)):
        assert paper(step - 1) == pytest.approx(10 * rate)
        assert paper(step) == pytest.approx(rate)


def test_cosine_falls_to_a_hundredth():
    rates = [learning_rate_at(s, peak=1.0, max_steps=100, warmup_steps=10, schedule="cosine") for s in range(10, 101)]
    assert rates[0] == pytest.approx(1)
    assert rates[-1] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_frozen_batch_norm_neither_learns_nor_counts():
    net = model().train()
    freeze_batch_norm(net)
    before = net[1].running_mean.clone()
    net(torch.randn(2, 3, 4, 4) + 5)
    assert torch.equal(net[1].running_mean, before)
    optimizer = build_optimizer(net, "sgd", 0.1, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2  # weight and bias of the convolution


def test_adamw_decays_weights_only():
    groups = build_optimizer(model(), "adamw", 0.1, 0.05).param_groups
    assert [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in groups] == [(0.05, {4}), (0.0, {1})]
    with pytest.raises(ValueError, match="'lamb' is unknown"):
        build_optimizer(model(), "lamb", 0.1, 0.0)


def test_average_follows_and_keeps_the_model_as_it_is():
    net = model()
    average = WeightAverage(net, 0.9)
    with torch.no_grad():
        net[0].weight += 1.0
    start = average.model[0].weight.clone()
    for _ in range(200):
        average.update()
    assert (average.model[0].weight - start).mean().item() == pytest.approx(1.0, abs=1e-3)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert net[0].weight.requires_grad
    with pytest.raises(ValueError, match="between 0 and 1"):
        WeightAverage(net, 1.0)
