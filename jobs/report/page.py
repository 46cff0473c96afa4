"""The page: one HTML file that holds its images, data, style and script, and loads nothing from outside.

Text from the lake cannot run as code: the template escapes it, the JSON block cannot be closed by its content, the
script writes text only as text nodes, and the content policy allows only the page's own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from jobs.report.building import ReportContent
from jobs.report.review import WEIGHTS
from jobs.report.statistics import Chart, Numbers, charts
from jobs.table.read import LabelTable
from jobs.table.record import RunRecord
from yolact.coco.curves import Point
from yolact.coco.quality import Quality

if TYPE_CHECKING:
    from jobs.report.plots import Plot
    from jobs.report.prototypes import PrototypeView

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("report_draw.js", "report_gallery.js", "report_page.js")

SAMPLING_METHOD = (
    "The stratum of an image is the class of its best instance, or “nothing found”, or its status if it failed. A "
    "stratum gets a share of the sample by the square root of its size, and at least one image, so that rare classes "
    "are seen. Within a stratum a hash of seed and id chooses at random. So the sample does not show how frequent a "
    "class is; the numbers below do."
)
REVIEW_METHOD = (
    "Every image of the table gets five values from 0 to 1, and those with the largest weighted sum, their worry, are "
    "shown: doubt (how far its lowest score is below 0.5), overlaps (pairs of boxes with IoU above 0.6), size (how far "
    "an instance's share of the image is from the median of its class), border (instances cut by the edge) and full "
    "(as many instances as the run allows). Weights: " + ", ".join(f"{k} {v:g}" for k, v in WEIGHTS.items()) + "."
)


@dataclass(frozen=True)
class QualitySection:
    """The plots of the page, and the name of the file beside it that has their numbers."""

    quality: Quality
    plots: list[Plot]
    class_plots: dict[str, Plot]
    json_name: str

    @property
    def classes(self) -> list[tuple[str, ...]]:
        """By class with objects, most objects first: its best F1, with the cells of the table as texts."""
        classes = sorted(self.quality.classes.items(), key=lambda item: (-item[1].objects, item[0]))
        return [
            (name, f"{one.objects:,}", f"{one.detections:,}", *_point_cells(one.half.best_f1()))
            for name, one in classes
            if one.objects
        ]


def _point_cells(point: Point | None) -> tuple[str, ...]:
    if point is None:
        return ("–",) * 4
    return (f"{point.score:.3f}", _percent(point.precision), _percent(point.recall), _percent(point.f1))


@dataclass(frozen=True)
class Page:
    """All texts and numbers that the template shows."""

    title: str
    model: str
    warnings: list[str]
    figures: list[dict[str, str]]
    sampling: str
    numbers: Numbers
    charts: list[Chart]
    classes: list[dict[str, Any]]
    class_columns: list[str]
    failures: list[dict[str, Any]]
    scores: list[list[str]]
    coverage: str
    has_truth: bool
    identity: list[tuple[str, str]]
    strata: list[tuple[str, int, int]]
    prototypes: Sequence[PrototypeView]
    prototype_note: str
    section: QualitySection | None
    sampling_method: str = SAMPLING_METHOD
    review_method: str = REVIEW_METHOD


def render(
    table: LabelTable,
    labels: str,
    content: ReportContent,
    prototypes: Sequence[PrototypeView] = (),
    prototype_note: str = "",
    section: QualitySection | None = None,
) -> str:
    """The HTML of the whole page. `labels` is the table's address, as the user wrote it."""
    run = table.run or RunRecord()
    numbers = content.numbers
    page = Page(
        title=labels,
        model=run.model,
        warnings=_warnings(table, content),
        figures=_figures(numbers, run),
        sampling=_sampling(content),
        numbers=numbers,
        charts=charts(numbers),
        classes=_classes(content),
        class_columns=["class", "instances", "images", "mean score", *(["mask AP"] if content.scores else [])],
        failures=_failures(numbers),
        scores=_scores(content),
        coverage="; ".join(content.scores.coverage) + "." if content.scores else "",
        has_truth=content.scores is not None,
        identity=_identity(run),
        strata=[(name, size, shown) for name, (size, shown) in content.strata.items()],
        prototypes=prototypes,
        prototype_note=prototype_note,
        section=section,
    )
    script = "\n".join((_TEMPLATES / name).read_text("utf-8") for name in _SCRIPTS)
    script = f"(() => {{\n{script}}})();"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        page=page,
        style=Markup((_TEMPLATES / "report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(inert_json(_data(content, prototypes))),
    )


def inert_json(value: Any) -> str:
    """JSON without <, > and &, so that it cannot close its HTML element or open another."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(content: ReportContent, prototypes: Sequence[PrototypeView]) -> dict[str, Any]:
    views = [
        {"sheet": v.sheet, "columns": v.columns, "coefficients": v.coefficients, "order": v.order, "box": v.box}
        for v in prototypes
    ]
    names = {label: numbers.name for label, numbers in content.numbers.classes.items()}
    cards = [{name: value for name, value in card.items() if name not in ("part", "uri")} for card in content.cards]
    return {"cards": cards, "classes": names, "prototypes": views}


def _warnings(table: LabelTable, content: ReportContent) -> list[str]:
    warnings = []
    if table.output is not None and not table.finished:
        warnings.append("The labelling run has not finished: this page shows the parts that it has published so far.")
    unseen = [card for card in content.cards if card["status"] == "ok" and card["image"] is None]
    if unseen:
        warnings.append(
            f"{len(unseen)} of the images on this page could not be read from the lake, such as {unseen[0]['id']}: "
            f"{unseen[0]['error']}."
        )
    return warnings


def _figures(numbers: Numbers, run: RunRecord) -> list[dict[str, str]]:
    failed = numbers.images - numbers.ok
    share = failed / numbers.images if numbers.images else 0.0
    empty = int(numbers.per_image[0])
    figures = [
        {"name": "Images", "value": f"{numbers.images:,}", "note": ""},
        {"name": "Instances", "value": f"{numbers.instances:,}", "note": ""},
        {"name": "Per image", "value": f"{numbers.instances / max(numbers.ok, 1):.1f}", "note": "instances"},
        {"name": "Nothing found", "value": f"{empty:,}", "note": f"{empty / max(numbers.ok, 1):.1%}"},
        {"name": "Failed", "value": f"{failed:,}", "note": f"{share:.2%}"},
    ]
    runs = [entry for entry in run.runs if entry.images]
    if runs:
        images, seconds = sum(entry.images for entry in runs), sum(entry.seconds for entry in runs)
        figures.append({"name": "Throughput", "value": f"{images / max(seconds, 1e-9):,.1f}", "note": "images/s"})
    return figures


def _sampling(content: ReportContent) -> str:
    sampled = sum(card["sampled"] is not None for card in content.cards)
    reviewed = sum(card["reviewed"] is not None for card in content.cards)
    whole = content.numbers.images
    if sampled == whole:
        return f"All {whole:,} images of the table; {reviewed:,} of them are in the review queue."
    return (
        f"A stratified random sample of {sampled:,} of {whole:,} images (seed {content.seed}), and the {reviewed:,} "
        "most worrying ones of the whole table. The end of the page says how both were chosen."
    )


def _classes(content: ReportContent) -> list[dict[str, Any]]:
    numbers = content.numbers
    by_class = {} if content.scores is None else content.scores.by_kind["mask"].ap_by_class
    most = max((c.instances for c in numbers.classes.values()), default=1)
    shown = {instance["label"] for card in content.cards for instance in card["instances"]}
    rows = []
    for label, found in sorted(numbers.classes.items(), key=lambda item: -item[1].instances):
        ap = by_class.get(found.name, -1.0)
        rows.append(
            {
                "label": label,
                "name": found.name,
                "on_page": label in shown,
                "instances": found.instances,
                "share": f"{found.instances / most:.3f}",
                "images": found.images,
                "score": f"{found.mean_score:.3f}",
                "ap": _percent(ap),
                "ap_sort": f"{ap:.4f}",
            }
        )
    return rows


def _failures(numbers: Numbers) -> list[dict[str, Any]]:
    rows = sorted(numbers.failures.items(), key=lambda item: -item[1].count)
    return [
        {"status": status, "reason": reason, "count": found.count, "examples": found.examples}
        for (status, reason), found in rows
    ]


def _scores(content: ReportContent) -> list[list[str]]:
    if content.scores is None:
        return []
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    kinds = (("masks", "mask"), ("boxes", "box"))
    return [
        [title, *(_percent(getattr(content.scores.by_kind[kind], name)) for name in names)] for title, kind in kinds
    ]


def _percent(value: float) -> str:
    return "–" if value < 0 else f"{100 * value:.1f}"


def _identity(run: RunRecord) -> list[tuple[str, str]]:
    """Names and values from run.json that tell one run from another. Nested values are flattened, classes left out."""
    values = run.to_dict()
    pairs: list[tuple[str, str]] = []
    for name in (
        "status",
        "model",
        "weights",
        "thresholds",
        "nms",
        "precision",
        "inputs",
        "identity_sha256",
        "versions",
    ):
        value = values[name]
        if isinstance(value, dict):
            pairs += [(f"{name} {key}", str(entry)) for key, entry in value.items() if entry not in (None, "")]
        elif isinstance(value, tuple) and value:
            pairs.append((name, ", ".join(map(str, value))))
        elif value:
            pairs.append((name, str(value)))
    for number, entry in enumerate(values["runs"], start=1):
        words = ", ".join(f"{key} {value}" for key, value in entry.items() if not isinstance(value, dict))
        pairs.append((f"run {number}", words))
    return pairs
