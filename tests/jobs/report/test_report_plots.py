"""The plots of the page: what they say, that they stay within themselves, and the JSON beside the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from support.detections import drawn_truth, imperfect_detections
from support.report_pages import rows_with_images
from support.tables import export, write_labels

from jobs.report import run
from jobs.report.options import ReportConfig
from jobs.report.plots import class_plots, quality_plots
from yolact.coco.evaluation import evaluate_and_match
from yolact.coco.quality import measure_quality

pytestmark = pytest.mark.compute

HOSTILE = "</svg><script>$x_1$\x01ああ"


def measured(name="dog"):
    truth = drawn_truth(1, images=40)
    truth["categories"][1]["name"] = name
    detections = imperfect_detections(truth, 2)
    return measure_quality(truth, detections, evaluate_and_match(truth, detections))


@pytest.fixture(scope="module")
def quality():
    return measured()


def test_plots_say_what_they_show(quality):
    plots = {plot.name: plot for plot in quality_plots(quality)}
    assert list(plots) == ["plot-all", "plot-score", "plot-calibration", "plot-confusion"]
    best = quality.whole.half.best_f1()
    assert f"{100 * best.f1:.1f} at score {best.score:.3f}" in plots["plot-score"].description
    assert f"{100 * quality.whole.calibration.expected_error:.1f} points" in plots["plot-calibration"].description
    assert len(plots["plot-all"].rows) == len(plots["plot-score"].rows) == 11
    found = plots["plot-confusion"]
    total = sum(int(cell) for row in found.rows for cell in row[1:])
    assert total == quality.confusion.counts.sum()
    # the classes that have objects, those with the most first
    assert list(class_plots(quality)) == ["person", "dog", "traffic light"]


def test_plots_share_no_id_and_no_style_with_the_page(quality):
    plots = [*quality_plots(quality), *class_plots(quality).values()]
    ids = Counter(found for plot in plots for found in re.findall(r' id="([^"]+)"', plot.svg))
    assert max(ids.values()) == 1
    for plot in plots:
        assert "<style" not in plot.svg
        assert "var(--ink)" in plot.svg
        assert not re.search(r"#0[1-5]0[1-5]0[1-5]", plot.svg)
        for reference in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', plot.svg):
            assert ids[max(reference)] == 1
        assert not re.search(r'href="(?!#)', plot.svg)
        assert f'aria-labelledby="{plot.name}-title"' in plot.svg


@pytest.mark.compute
def test_the_plots_of_many_classes_leave_room_for_the_images(quality):
    many = replace(quality, classes={f"class {number}": quality.classes["dog"] for number in range(60)})
    plots = class_plots(many)
    assert len(plots) == 40
    # thumbnails take up to 26.7 MB of a page's 30
    assert sum(len(plot.svg) for plot in [*plots.values(), *quality_plots(quality)]) < 1_500_000


def test_class_names_cannot_break_a_plot():
    plots = [*quality_plots(measured(HOSTILE)), *class_plots(measured(HOSTILE)).values()]
    assert all("<script" not in plot.svg for plot in plots)
    assert any("&lt;/svg&gt;" in plot.svg for plot in plots)


def test_nothing_found_gives_plots_without_lines():
    truth = drawn_truth(1)
    quality = measure_quality(truth, [], evaluate_and_match(truth, []))
    assert "No mask is right" in quality_plots(quality)[1].description
    assert quality.score == 0


def test_the_page_names_the_json_beside_it(tmp_path, capsys):
    rows = rows_with_images(tmp_path / "lake", 6)
    output = write_labels(tmp_path / "out", [rows])
    truth = export(output, tmp_path / "truth.json")
    run(ReportConfig(output, str(tmp_path / "page.html"), ground_truth=str(truth)))
    assert "curves in page.curves.json" in capsys.readouterr().out
    curves = json.loads((tmp_path / "page.curves.json").read_text())
    assert curves["all"]["best_f1"]["0.50"]["f1"] == pytest.approx(1)
    text = (tmp_path / "page.html").read_text()
    assert 'id="plot-confusion"' in text
    assert "page.curves.json" in text
    run(ReportConfig(output, str(tmp_path / "plain.html")))
    assert 'id="quality"' not in (tmp_path / "plain.html").read_text()
    assert not (tmp_path / "plain.curves.json").exists()
