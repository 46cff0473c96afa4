"""`yolact report` from options to the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs import storage
from jobs.report.building import ReportContent, build_report
from jobs.report.cards import read_pixels
from jobs.report.page import QualitySection, render
from jobs.report.truth import read_truth
from jobs.runtime.model_source import resolve_model
from jobs.table.images import ImageSource
from jobs.table.policy_file import read_policy
from jobs.table.read import LabelTable, open_labels
from jobs.table.record import RunRecord
from yolact.coco.quality import Quality

if TYPE_CHECKING:
    from jobs.report.options import ReportConfig
    from jobs.report.prototypes import PrototypeView


def write_report(config: ReportConfig) -> str:
    """Write the page; returns one line that says what the page shows."""
    policy = None if config.policy is None else read_policy(config.policy)
    table = open_labels(config.labels).under(policy)
    truth = None if config.ground_truth is None else read_truth(config.ground_truth)
    if truth is not None and table.policy is not None:
        truth = replace(truth, images=table.policy.of_truth(truth.images))
    model = _model(config)
    content = build_report(table, config, truth)
    views: Sequence[PrototypeView] = ()
    note = ""
    if model is not None:
        views = _prototype_views(config.prototypes, table, content, model.load())
        labelled_by = (table.run or RunRecord()).weights.sha256
        if labelled_by not in ("", model.sha256):
            note = "These come from other weights than the labels on this page."
    section = None if content.scores is None else _quality_section(content.scores.quality, _curves_uri(config.output))
    page = render(table, config.labels, content, views, note, section).encode()
    storage.put_atomic(config.output, page)
    line = (
        f"wrote {config.output}: {len(content.cards):,} of {content.numbers.images:,} images, {len(page) / 1e6:.1f} MB"
    )
    if content.scores is None or section is None:
        return line
    storage.put_atomic(_curves_uri(config.output), json.dumps(content.scores.quality.to_dict()).encode())
    return f"{line}; curves in {section.json_name}"


def _curves_uri(output: str) -> str:
    """The file beside the page that has the numbers of its plots."""
    return f"{output.removesuffix('.html')}.curves.json"


def _quality_section(quality: Quality, json_uri: str) -> QualitySection:
    # imports matplotlib, which a page without ground truth does not need
    from jobs.report.plots import class_plots, quality_plots

    return QualitySection(quality, quality_plots(quality), class_plots(quality), json_uri.rsplit("/", 1)[-1])


def _model(config: ReportConfig) -> Any:
    if config.prototypes == 0:
        return None
    return resolve_model(config.config, config.weights)


def _prototype_views(count: int, table: LabelTable, content: ReportContent, model: Any) -> list[PrototypeView]:
    """Views of the `count` images on the page with the surest instances in which the model finds something."""
    from jobs.report.prototypes import prototype_view  # imports torch, which a page without prototypes does not need

    best = sorted(
        (card for card in content.cards if card["image"] and card["instances"]),
        key=lambda card: (-card["instances"][0]["score"], card["id"]),
    )
    views: list[PrototypeView] = []
    for card in best:
        if len(views) == count:
            break
        pixels = read_pixels(ImageSource.of(table), card["part"], card["id"], card["uri"])
        view = None if isinstance(pixels, str) else prototype_view(model, card["id"], pixels)
        if view is not None:
            views.append(view)
    return views
