"""The three kinds of NMS against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolact.config import NmsConfig
from yolact.geometry.boxes import box_iou
from yolact.inference import nms
from yolact.inference.nms import NMS_KINDS, STANDARD_FACTOR, cross_class_fast_nms, fast_nms, standard_nms


@st.composite
def scenes(draw):
    """Boxes on a coarse grid (many overlaps) with coarse scores (many ties), and settings small enough to bite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, classes = draw(st.integers(0, 25)), draw(st.integers(1, 4))
    corner = rng.integers(0, 5, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 5, (count, 2))], axis=1) / 8
    scores = rng.integers(0, draw(st.sampled_from([4, 50])) + 1, (count, classes)) / 50
    nms_config = NmsConfig(
        score_floor=0.0,
        iou_threshold=draw(st.sampled_from([0.0, 0.3, 0.5])),
        top_k=draw(st.sampled_from([1, 3, 8, 200])),
        max_detections=draw(st.sampled_from([1, 2, 10, 100])),
    )
    threshold = draw(st.sampled_from([0.0, 0.04, 0.5]))
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(scores).float(), nms_config, threshold


def by_score(detections):
    """(score, label, row), best first; ties to the lower label, then the lower row."""
    return sorted(detections, key=lambda d: (-d[0], d[1], d[2]))


def as_list(kept):
    return list(zip(kept.scores.tolist(), kept.labels.tolist(), kept.rows.tolist(), strict=True))


def fast_loop(boxes, scores, settings, classes):
    """Fast NMS as a loop over the classes' lists, given as {label: [(score, row), …]}."""
    iou = box_iou(boxes, boxes)
    found = []
    for label, rows in classes.items():
        best = sorted(rows, key=lambda pair: (-pair[0], pair[1]))[: settings.top_k]
        for place, (score, row) in enumerate(best):
            if all(iou[better, row] <= settings.iou_threshold for _, better in best[:place]):
                found.append((score, label, row))
    return by_score(found)


@settings(deadline=None)
@given(scenes())
def test_fast_nms_is_the_plain_loop(scene):
    boxes, scores, settings, threshold = scene
    classes = {label: [(s, row) for row, s in enumerate(column)] for label, column in enumerate(scores.T.tolist())}
    expected = fast_loop(boxes, scores, settings, classes)[: settings.max_detections]
    assert as_list(fast_nms(*scene)) == [d for d in expected if d[0] > threshold]


@settings(deadline=None)
@given(scenes())
def test_cross_class_fast_nms_is_the_plain_loop(scene):
    boxes, scores, settings, threshold = scene
    settings = NmsConfig(iou_threshold=settings.iou_threshold, top_k=200, max_detections=1)
    best = [(max(row), row.index(max(row))) for row in scores.tolist()]
    iou = box_iou(boxes, boxes)
    order = sorted(range(len(best)), key=lambda row: (-best[row][0], row))
    kept = [
        (best[row][0], best[row][1], row)
        for place, row in enumerate(order)
        if best[row][0] > threshold and all(iou[other, row] <= settings.iou_threshold for other in order[:place])
    ]
    found = as_list(cross_class_fast_nms(boxes, scores, settings, threshold))
    assert [(score, row) for score, _, row in found] == [(score, row) for score, _, row in kept]
    assert all(scores[row, label] == score for score, label, row in found)


def test_cross_class_lets_top_k_in():
    boxes = torch.tensor([[i / 8, 0.0, i / 8 + 0.1, 0.1] for i in range(5)])
    scores = torch.tensor([[0.1], [0.5], [0.3], [0.4], [0.2]])
    kept = cross_class_fast_nms(boxes, scores, NmsConfig(top_k=3, max_detections=1))
    assert kept.rows.tolist() == [1, 3, 2]


@pytest.mark.compute
@settings(deadline=None)
@given(scenes())
def test_standard_nms_is_the_greedy_loop(scene):
    boxes, scores, settings, threshold = scene
    iou = box_iou(boxes.double(), boxes.double())
    kept: list[tuple[float, int, int]] = []
    pairs = [(s, label, row) for row, line in enumerate(scores.tolist()) for label, s in enumerate(line)]
    for score, label, row in by_score(pair for pair in pairs if pair[0] > threshold):
        rivals = [other for _, other_label, other in kept if other_label == label]
        if all(iou[other, row] <= settings.iou_threshold for other in rivals):
            kept.append((score, label, row))
    assert as_list(standard_nms(*scene)) == kept[: settings.max_detections]


def test_a_removed_box_removes_others_in_fast_nms_only():
    boxes = torch.tensor([[0.0, 0.0, 0.6, 1.0], [0.15, 0.0, 0.75, 1.0], [0.3, 0.0, 0.9, 1.0]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    assert fast_nms(boxes, scores, NmsConfig()).rows.tolist() == [0]
    assert standard_nms(boxes, scores, NmsConfig()).rows.tolist() == [0, 2]


@pytest.mark.compute
def test_the_best_are_settled_without_the_rest():
    """More candidates than the first share: the answer is that of the whole list."""
    rng = np.random.default_rng(0)
    corner = rng.random((400, 2)) * 0.9
    boxes = torch.tensor(np.concatenate([corner, corner + 0.1], axis=1), dtype=torch.float32)
    scores = torch.tensor(rng.random((400, 3)), dtype=torch.float32)
    settings = NmsConfig(max_detections=5)
    classes = {label: [(s, row) for row, s in enumerate(column)] for label, column in enumerate(scores.T.tolist())}
    assert as_list(fast_nms(boxes, scores, settings)) == fast_loop(boxes, scores, settings, classes)[:5]


@pytest.mark.parametrize("kind", NMS_KINDS)
def test_nothing_in_nothing_out(kind):
    kept = NMS_KINDS[kind](torch.zeros(0, 4), torch.zeros(0, 3), NmsConfig(), 0.1)
    assert [len(part) for part in kept] == [0, 0, 0]
    assert kept.labels.dtype == kept.rows.dtype == torch.int64


def near_equal_scores(count, classes, floor, box=None):
    """A fresh fine-tune's answer: every anchor scores about the same, above the floor, for every class."""
    rng = torch.Generator().manual_seed(0)
    scores = floor + 0.001 + 0.001 * torch.rand(count, classes, generator=rng)
    if box is not None:
        return torch.tensor(box).expand(count, 4), scores
    corner = torch.rand(count, 2, generator=rng) * 0.95
    return torch.cat([corner, corner + 0.02 + 0.03 * torch.rand(count, 2, generator=rng)], dim=1), scores


@pytest.fixture
def suppressed(monkeypatch):
    """How many candidates of each class go into every call of torchvision's NMS."""
    calls = []
    real = nms.batched_nms

    def counted(boxes, scores, labels, threshold):
        calls.append(torch.bincount(labels).max().item() if len(labels) else 0)
        return real(boxes, scores, labels, threshold)

    monkeypatch.setattr(nms, "batched_nms", counted)
    return calls


def test_standard_nms_of_a_fresh_fine_tune_looks_at_few_candidates(suppressed):
    settings = NmsConfig(score_floor=0.02, top_k=500, max_detections=500)
    boxes, scores = near_equal_scores(135_756, 2, settings.score_floor)
    kept = standard_nms(boxes, scores, settings, 0.0)
    assert len(kept.rows) == settings.max_detections
    # 271,512 before
    assert sum(suppressed) < 20_000


def test_standard_nms_is_bounded_where_nothing_survives(suppressed):
    settings = NmsConfig(score_floor=0.02, top_k=50, max_detections=50)
    boxes, scores = near_equal_scores(30_000, 2, settings.score_floor, box=[0.1, 0.1, 0.2, 0.2])
    kept = standard_nms(boxes, scores, settings, 0.0)
    assert sorted(kept.labels.tolist()) == [0, 1]
    assert max(suppressed) <= STANDARD_FACTOR * settings.top_k
    assert kept.scores.max() == scores.max()


def test_standard_nms_settles_the_best_without_the_rest(suppressed):
    """Several shares are looked at: the answer is that of the whole list."""
    settings = NmsConfig(score_floor=0.02, top_k=500, max_detections=40)
    boxes, scores = near_equal_scores(3_000, 2, settings.score_floor)
    # a crowd that holds the best scores and leaves one box
    boxes[:1_000], scores[:1_000] = boxes[0].clone(), scores[:1_000] + 0.01
    kept = standard_nms(boxes, scores, settings, 0.0)
    assert len(suppressed) > 1
    candidates = nms._candidates(scores, settings.score_floor)
    whole = nms.batched_nms(
        boxes[candidates.rows].double(), candidates.scores.double(), candidates.labels, settings.iou_threshold
    )
    expected = candidates.take(whole.sort().values[: settings.max_detections])
    assert as_list(kept) == as_list(expected)
