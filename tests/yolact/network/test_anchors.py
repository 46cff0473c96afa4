"""Anchors by hand-computed cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from yolact.config import CONFIGS, AnchorConfig
from yolact.network.anchors import make_anchors

#: 64 px, one level of stride 32: a 2 × 2 map
TWO_BY_TWO = replace(
    CONFIGS["yolact_base"], input_size=64, head_levels=(5,), anchors=AnchorConfig(((16.0, 32.0),), (1.0, 4.0))
)


def test_order_is_row_column_scale_ratio():
    anchors = make_anchors(TWO_BY_TWO)
    assert anchors.shape == (16, 4)
    assert anchors.dtype == torch.float32
    assert anchors[::4, :2].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    # 16 px and 32 px of 64; a ratio of 4 doubles the width and halves the height
    assert anchors[:4, 2:].tolist() == [[0.25, 0.25], [0.5, 0.125], [0.5, 0.5], [1.0, 0.25]]


def test_square_anchors_are_as_high_as_wide():
    square = replace(TWO_BY_TWO, anchors=replace(TWO_BY_TWO.anchors, square=True))
    assert make_anchors(square)[:4, 2:].tolist() == [[0.25, 0.25], [0.5, 0.5], [0.5, 0.5], [1.0, 1.0]]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_count_of_every_config(config):
    anchors = make_anchors(config)
    cells = sum(config.level_size(level) ** 2 for level in config.head_levels)
    assert anchors.shape == (config.anchors.per_cell * cells, 4)
    assert ((anchors[:, :2] > 0) & (anchors[:, :2] < 1)).all()


def test_anchors_are_real_on_the_meta_device():
    with torch.device("meta"):
        assert make_anchors(TWO_BY_TWO).device.type == "cpu"
