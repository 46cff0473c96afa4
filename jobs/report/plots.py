"""Plots of the quality of masks, as SVG drawn by matplotlib and made fit for the page.

The page has two themes and several plots in one document, and it is read by keyboards and screen readers too. So the
colours become variables of the page's style, ids are unique on the page, every plot has a title and a description, and
its numbers stand beside it as a table.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from yolact.coco.confusion import BACKGROUND, Confusion
from yolact.coco.curves import RECALL_POINTS, Calibration
from yolact.coco.quality import ClassQuality, Quality

#: colours that stand for variables of the page's style; no other colour of a plot has these values
_INK, _QUIET, _LINE, _BAR, _PANEL = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _LINE: "--line", _BAR: "--bar", _PANEL: "--panel"}
#: colour and dashes of each line: they can be told apart without colours, on a light and on a dark ground
_LINES = (
    ("#3f7fce", "-"),
    ("#c2571a", "--"),
    ("#2f8f4e", "-."),
    ("#a25bc9", ":"),
    ("#8a7a1e", (0, (1, 1, 4, 1))),
)
#: indices of the values of IoU that are drawn: 0.50, 0.60 … 0.90
_DRAWN_IOUS = (0, 2, 4, 6, 8)
#: classes with a plot of their own, those with the most objects
MOST_CLASSES = 40
#: classes of the confusion plot, those with the most confusions
_MOST_CONFUSED = 12
_STYLE: Any = {
    # a class may be named "$x$"
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "yolact",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "grid.color": _LINE,
    "legend.frameon": False,
}
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Plot:
    """One plot of the page. `columns` and `rows` are its numbers as a table."""

    name: str
    """unique on the page; the ids of the SVG start with it"""
    title: str
    description: str
    svg: Markup
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def quality_plots(quality: Quality) -> list[Plot]:
    """The plots of all classes together, and the confusions."""
    plots = [
        recall_plot("plot-all", "Precision and recall of all classes", quality.whole, quality.ious),
        score_plot(quality),
        calibration_plot(quality.whole.calibration),
    ]
    return [*plots, confusion_plot(quality.confusion)] if quality.confusion.counts.any() else plots


def class_plots(quality: Quality) -> dict[str, Plot]:
    """By name, precision and recall of the classes with the most objects."""
    most = sorted((name for name, one in quality.classes.items() if one.objects), key=_by_objects(quality))
    return {
        name: recall_plot(
            f"plot-class-{number}", f"Precision and recall of {name}", quality.classes[name], quality.ious
        )
        for number, name in enumerate(most[:MOST_CLASSES])
    }


def recall_plot(name: str, title: str, one: ClassQuality, ious: Sequence[float]) -> Plot:
    """Precision over recall at five values of IoU."""
    curves = [one.curves[place].over_recall()[0] for place in _DRAWN_IOUS]
    names = [f"{ious[place]:.2f}" for place in _DRAWN_IOUS]

    def draw(axes: Axes) -> None:
        for (colour, dashes), iou, precision in zip(_LINES, names, curves, strict=True):
            reached = precision > 0
            axes.plot(RECALL_POINTS[reached], precision[reached], color=colour, linestyle=dashes, label=f"IoU {iou}")
        _shares(axes, "recall", "precision")
        axes.legend(loc="lower left")

    rows = [
        (f"{RECALL_POINTS[point]:.1f}", *(_percent(precision[point]) for precision in curves))
        for point in range(0, 101, 10)
    ]
    areas = ", ".join(f"{_percent(precision.mean())} at {iou}" for iou, precision in zip(names, curves, strict=True))
    words = f"{one.objects:,} objects. The area under the curve by IoU, in percent: {areas}."
    return _plot(name, title, words, draw, ("recall", *(f"precision at IoU {iou}" for iou in names)), rows)


def score_plot(quality: Quality) -> Plot:
    """Precision, recall and F1 over the score threshold, at IoU 0.50."""
    found = quality.whole.half
    thresholds = np.linspace(0, 1, 101)
    points = [found.at(float(threshold)) for threshold in thresholds]
    values = {name: np.array([getattr(point, name) for point in points]) for name in ("precision", "recall", "f1")}
    best = found.best_f1()

    def draw(axes: Axes) -> None:
        for (colour, dashes), (name, line) in zip(_LINES[:3], values.items(), strict=True):
            known = line >= 0
            label = name.replace("f1", "F1")
            axes.plot(thresholds[known], line[known], color=colour, linestyle=dashes, label=label)
        if best is not None:
            axes.axvline(best.score, color=_QUIET, linewidth=1)
        _shares(axes, "score threshold", "share")
        axes.legend(loc="lower left")

    words = (
        "No mask is right at any score."
        if best is None
        else f"The best F1 is {_percent(best.f1)} at score {best.score:.3f}, with precision {_percent(best.precision)} "
        f"and recall {_percent(best.recall)}, in percent; a line marks it."
    )
    rows = [
        (f"{points[place].score:.1f}", *(_percent(line[place]) for line in values.values()))
        for place in range(0, 101, 10)
    ]
    columns = ("score threshold", "precision", "recall", "F1")
    return _plot("plot-score", "Precision, recall and F1 by score", words, draw, columns, rows)


def calibration_plot(found: Calibration) -> Plot:
    """The share of right masks over their mean score."""
    some = found.detections > 0
    middles = (found.edges[:-1] + found.edges[1:]) / 2

    def draw(axes: Axes) -> None:
        axes.bar(middles[some], found.share_right[some], width=0.09, color=_BAR)
        axes.plot(
            found.mean_score[some], found.mean_score[some], "o-", color=_LINES[1][0], markersize=4, label="mean score"
        )
        _shares(axes, "score", "share of right masks")
        axes.legend(loc="upper left")

    words = "There are no masks to compare."
    if some.any():
        words = (
            f"Score and share differ by {100 * found.expected_error:.1f} points on average. "
            "Bars below the line: scores are too high."
        )
    rows = [
        (f"{low:.1f}–{high:.1f}", f"{count:,}", _percent(score), _percent(share))
        for low, high, count, score, share in zip(
            found.edges, found.edges[1:], found.detections, found.mean_score, found.share_right, strict=False
        )
    ]
    columns = ("score", "masks", "mean score", "right")
    return _plot("plot-calibration", "Calibration of scores", words, draw, columns, rows)


def confusion_plot(found: Confusion) -> Plot:
    """Counts of the most confused classes; the other classes are one row and one column."""
    names, counts = _most_confused(found)

    def draw(axes: Axes) -> None:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = float(shares[row, column])
            axes.bar(column, 1, bottom=row - 0.5, width=1, color=_BAR, alpha=0.15 + 0.6 * share)
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="found as", ylabel="is")
        short = [_cut(name) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), short)

    pairs = [
        f"{truth} as {detected} {count}"
        for truth, detected, count in found.pairs()
        if BACKGROUND not in (truth, detected)
    ]
    frequent = f" The most frequent: {', '.join(pairs[:5])}." if pairs else ""
    right, paired = int(np.trace(found.counts)), int(found.counts[:-1, :-1].sum())
    words = (
        f"Masks with score {found.score:g} or more, at IoU {found.iou:.2f}: {right:,} have their class, "
        f"{paired - right:,} another one, {int(found.counts[:-1, -1].sum()):,} objects are not found, "
        f"{int(found.counts[-1].sum()):,} masks have no object.{frequent}"
    )
    rows = [(name, *(f"{count:,}" for count in row)) for name, row in zip(names, counts.tolist(), strict=True)]
    return _plot(
        "plot-confusion", "Confusions", words, draw, ("is", *(f"as {name}" for name in names)), rows, size=(6.4, 5.2)
    )


def _by_objects(quality: Quality) -> Callable[[str], tuple[int, str]]:
    return lambda name: (-quality.classes[name].objects, name)


def _most_confused(found: Confusion) -> tuple[list[str], np.ndarray]:
    """Names and counts of the rows to show: the most confused classes, the others together, and the background."""
    mistakes = found.counts - np.diag(np.diag(found.counts))
    weight = (mistakes.sum(axis=0) + mistakes.sum(axis=1))[:-1]
    used = (found.counts.sum(axis=0) + found.counts.sum(axis=1))[:-1] > 0
    order = [int(place) for place in np.argsort(-weight, kind="stable") if used[place]]
    shown, others = sorted(order[:_MOST_CONFUSED]), order[_MOST_CONFUSED:]
    groups = [[place] for place in shown] + ([others] if others else []) + [[len(found.names)]]
    names = [found.names[place] for place in shown] + ([f"{len(others)} others"] if others else []) + [BACKGROUND]
    return names, np.array([[found.counts[np.ix_(rows, columns)].sum() for columns in groups] for rows in groups])


def _plot(
    name: str,
    title: str,
    words: str,
    draw: Callable[[Axes], None],
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    size: tuple[float, float] = (5.2, 3.4),
) -> Plot:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # matplotlib's font may lack the letters of a class name, and the browser's has them
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return Plot(name, title, words, Markup(_for_page(text.getvalue(), name, title, words)), columns, rows)


def _for_page(svg: str, name: str, title: str, words: str) -> str:
    """The SVG with the page's colours and ids, a title and a description, and nothing that reaches beyond it."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # matplotlib's style would apply to the whole page, its metadata is of no use there
            if child.tag.rpartition("}")[2] in ("style", "metadata"):
                parent.remove(child)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    wanted = {one or other for one, other in used}
    for element in root.iter():
        _adapt(element, name, wanted)
    for tag, part in (("desc", words), ("title", title)):
        made = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        made.text = part
        root.insert(0, made)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.attrib |= {
        "role": "img",
        "tabindex": "0",
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-desc",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str, wanted: set[str]) -> None:
    """Give one element the page's colours, and an id that is unique on the page where something refers to it."""
    found = element.attrib
    if "id" in found and found["id"] not in wanted:
        del found["id"]
    elif "id" in found:
        found["id"] = f"{name}-{found['id']}"
    if found.get(_HREF, "").startswith("#"):
        found["href"] = f"#{name}-{found.pop(_HREF)[1:]}"
    for attribute, value in found.items():
        # the page has its own font
        value = re.sub(r"font-family: [^;]+; ?", "", value)
        value = value.replace("url(#", f"url(#{name}-")
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, f"var({variable})")
        found[attribute] = value


def _shares(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)
    axes.grid(linewidth=0.6)


def _percent(value: float) -> str:
    return "–" if value < 0 else f"{100 * value:.1f}"


def _cut(name: str, most: int = 16) -> str:
    # XML cannot hold control characters
    name = "".join(letter if letter.isprintable() else "�" for letter in name)
    return name if len(name) <= most else name[: most - 1] + "…"
