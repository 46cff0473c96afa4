"""Anchors and ground truths, by hand and against the release's way of matching."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolact.geometry.boxes import box_iou
from yolact.training.matching import anchor_corners, claim_best_anchors, match_anchors

# four anchors of side 0.4, centres on a row
ANCHORS = torch.tensor([[0.2, 0.5, 0.4, 0.4], [0.4, 0.5, 0.4, 0.4], [0.6, 0.5, 0.4, 0.4], [0.8, 0.5, 0.4, 0.4]])


def boxes(*centres, size=0.4):
    return torch.tensor([[x - size / 2, 0.3, x + size / 2, 0.7] for x in centres])


def test_exact_box_is_positive_and_far_anchor_is_background():
    matches = match_anchors(ANCHORS, boxes(0.2), torch.tensor([6]))
    assert matches.classes.tolist() == [7, 0, 0, 0]
    assert matches.positive.tolist() == [True, False, False, False]


def test_between_the_thresholds_is_neutral():
    # shifted by 0.16 of 0.4: IoU 0.24 / 0.56 = 0.43 with anchor 0, and anchor 1 is the one claimed
    matches = match_anchors(ANCHORS, boxes(0.36), torch.tensor([0]))
    assert matches.classes.tolist() == [-1, 1, 0, 0]


def test_every_target_claims_an_anchor_however_small_the_overlap():
    matches = match_anchors(ANCHORS, boxes(0.6, size=0.02), torch.tensor([3]))
    assert matches.classes.tolist() == [0, 0, 4, 0]


def test_two_targets_on_one_anchor_get_one_each():
    # both fit anchor 1 best; the exact one has it, the other takes its next best, though a third anchor fits the first
    matches = match_anchors(ANCHORS, boxes(0.4, 0.42), torch.tensor([0, 1]))
    assert matches.classes[1] == 1
    assert matches.classes[2] == 2
    assert matches.target_index[[1, 2]].tolist() == [0, 1]


def test_crowds_make_neutral_but_never_positive_anchors():
    crowd = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
    matches = match_anchors(ANCHORS, boxes(0.8), torch.tensor([0]), crowd)
    # anchor 2 lies in the crowd to 3/4, anchor 1 to 1/4; anchor 3 is positive
    assert matches.classes.tolist() == [0, 0, -1, 1]


def test_no_target_is_all_background():
    matches = match_anchors(ANCHORS, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert matches.classes.tolist() == [0, 0, 0, 0]


def test_corners_are_centre_and_half_size():
    assert anchor_corners(torch.tensor([[0.5, 0.4, 0.2, 0.6]])).allclose(torch.tensor([[0.4, 0.1, 0.6, 0.7]]))


def claimed_by_scanning(overlaps):
    """One scan of the whole matrix per target, as the release does it."""
    overlaps = overlaps.clone()
    claimed = [0] * len(overlaps)
    for _ in range(len(overlaps)):
        best, anchor = overlaps.max(dim=1)
        target = int(best.argmax())
        claimed[target] = int(anchor[target])
        overlaps[:, anchor[target]] = -1
        overlaps[target] = -1
    return claimed


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(12, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_claims_are_those_of_the_release_ties_included(targets, anchors, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    overlaps = torch.randint(0, levels + 1, (targets, anchors), generator=generator) / levels
    assert claim_best_anchors(overlaps).tolist() == claimed_by_scanning(overlaps)


@pytest.mark.compute
def test_claims_with_hundreds_of_crowded_targets():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator)
    targets = torch.cat([corner, corner + 0.01], dim=1)
    grid = torch.rand(2000, 2, generator=generator)
    overlaps = box_iou(targets, torch.cat([grid, grid + 0.02], dim=1))
    assert claim_best_anchors(overlaps).tolist() == claimed_by_scanning(overlaps)
