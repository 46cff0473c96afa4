"""The view of prototypes shows what the model computes: all of them, and their sums up to the mask of the predictor."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from support.lakes import draw_images
from support.models import save_tiny_checkpoint
from support.report_pages import page_data, rows_with_images
from support.tables import write_labels

from jobs.report import run
from jobs.report.options import ReportConfig
from jobs.report.prototypes import _coloured, prototype_view
from yolact import Predictor
from yolact.weights.checkpoint import load_model

pytestmark = pytest.mark.compute


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(str(save_tiny_checkpoint(tmp_path_factory.mktemp("model"))))[0]


@pytest.fixture
def pixels():
    [data] = draw_images(1).values()
    return np.array(Image.open(io.BytesIO(data)))


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)


def test_a_view_holds_every_prototype_and_ends_in_the_mask(model, pixels):
    view = prototype_view(model, "a.jpg", pixels)
    assert sorted(view.order) == list(range(8))
    assert len(view.coefficients) == 8
    assert [count for count, _ in view.steps] == [1, 2, 4, 8]
    [best] = Predictor(model, score_threshold=0.0, max_detections=1)([pixels])
    assert view.score == pytest.approx(float(best.scores[0]), abs=1e-3)
    assert view.label == int(best.labels[0])
    height, width = pixels.shape[:2]
    assert np.array(view.box) * [width, height, width, height] == pytest.approx(best.boxes[0], abs=0.05)
    # within the box the whole mask and the cropped one agree; outside the cropped one is empty
    whole, cropped = opened(view.steps[-1][1]), opened(view.cropped)
    side = whole.shape[0]
    x1, y1, x2, y2 = (int(v * side) for v in view.box)
    empty = _coloured(np.zeros((1, 1)))[0, 0].astype(int)
    outside = np.ones((side, side), bool)
    outside[max(0, y1 - 4) : y2 + 5, max(0, x1 - 4) : x2 + 5] = False
    assert np.abs(cropped[outside] - empty).max(initial=0) < 40


def test_the_page_shows_as_many_as_asked(model, tmp_path):
    rows = rows_with_images(tmp_path / "lake", 3)
    weights = save_tiny_checkpoint(tmp_path)
    page = tmp_path / "report.html"
    run(ReportConfig(write_labels(tmp_path / "out", [rows]), str(page), prototypes=2, weights=str(weights)))
    assert len(page_data(page)["prototypes"]) == 2
    assert page.read_text().count('class="prototype"') == 2
