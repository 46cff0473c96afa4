"""Box geometry by hand-computed cases: formats, overlaps, the SSD coding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou as reference_iou

from yolact.geometry.boxes import (
    box_iou,
    cxcywh_to_xyxy,
    decode_boxes,
    encode_boxes,
    intersection_over_area,
    relative_to_pixels,
    xyxy_to_cxcywh,
)

positions = st.floats(0.0, 1.0, width=32)
sizes = st.floats(2**-7, 1.0, width=32)
box = st.tuples(positions, positions, sizes, sizes)
boxes_cxcywh = st.lists(box, min_size=1, max_size=8)


def test_conversion_by_hand():
    assert cxcywh_to_xyxy(torch.tensor([[5.0, 6.0, 4.0, 2.0]])).tolist() == [[3.0, 5.0, 7.0, 7.0]]
    assert xyxy_to_cxcywh(torch.tensor([[3.0, 5.0, 7.0, 7.0]])).tolist() == [[5.0, 6.0, 4.0, 2.0]]


def test_coding_by_hand():
    anchor = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    assert torch.allclose(decode_boxes(torch.zeros(1, 4), anchor), torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
    # a shift by half the anchor's width is 0.5 / 0.1; twice the height is ln 2 / 0.2
    deltas = encode_boxes(torch.tensor([[0.5, 0.1, 0.7, 0.9]]), anchor)
    assert torch.allclose(deltas, torch.tensor([[5.0, 0.0, 0.0, 3.4657359]]), atol=1e-5)


@pytest.mark.compute
@settings(deadline=None)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=8))
def test_coding_round_trip(pairs):
    boxes, anchors = torch.tensor(pairs).unbind(1)
    corners = cxcywh_to_xyxy(boxes)
    assert torch.allclose(decode_boxes(encode_boxes(corners, anchors), anchors), corners, atol=1e-4)


@pytest.mark.compute
@settings(deadline=None)
@given(boxes_cxcywh, boxes_cxcywh)
def test_iou_is_torchvisions(boxes, others):
    boxes, others = (cxcywh_to_xyxy(torch.tensor(some)) for some in (boxes, others))
    assert torch.allclose(box_iou(boxes, others), reference_iou(boxes, others), atol=1e-6)


def test_overlaps_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    others = torch.tensor([[1.0, 0.0, 4.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert box_iou(boxes, others).tolist() == [[0.25, 0.0], [0.0, 0.0]]
    assert intersection_over_area(boxes, others).tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert box_iou(torch.zeros(0, 4), others).shape == (0, 2)
    assert box_iou(boxes.expand(3, 2, 4), others.expand(3, 2, 4)).shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("relative", "pixels"),
    [
        ([0.1, 0.2, 0.3, 0.4], [20.0, 20.0, 60.0, 40.0]),
        ([0.3, 0.4, 0.1, 0.2], [20.0, 20.0, 60.0, 40.0]),
        ([-0.5, -1.0, 2.0, 3.0], [0.0, 0.0, 200.0, 100.0]),
        ([1.5, -2.0, 1.7, -1.0], [200.0, 0.0, 200.0, 0.0]),
    ],
)
def test_relative_to_pixels(relative, pixels):
    found = relative_to_pixels(torch.tensor([relative]), height=100, width=200)
    assert torch.allclose(found, torch.tensor([pixels]))
