"""The numbers of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from yolact.coco.confusion import BACKGROUND
from yolact.coco.curves import Point
from yolact.coco.evaluation import CocoScores
from yolact.coco.quality import Quality

#: pairs of classes that are printed
_CONFUSIONS_SHOWN = 5

#: label and field of each row of the table; the second half of COCO's summary is recall
_ROWS = (
    ("AP 0.50:0.95", "ap"),
    ("AP 0.50", "ap50"),
    ("AP 0.75", "ap75"),
    ("AP small", "ap_small"),
    ("AP medium", "ap_medium"),
    ("AP large", "ap_large"),
    ("AR at 1", "ar_1"),
    ("AR at 10", "ar_10"),
    ("AR at {limit}", "ar_max"),
    ("AR small", "ar_small"),
    ("AR medium", "ar_medium"),
    ("AR large", "ar_large"),
)


def score_lines(scores: dict[str, CocoScores], per_class: bool = False) -> Iterator[str]:
    """A table with a column per kind of overlap; "—" where the ground truth has nothing of that size."""
    limit = next(iter(scores.values())).max_detections
    yield ""
    yield _line(f"at most {limit} detections", list(scores))
    for label, name in _ROWS:
        yield _line(label.format(limit=limit), [_percent(getattr(result, name)) for result in scores.values()])
    for iou in next(iter(scores.values())).ap_by_iou:
        yield _line(f"AP at IoU {iou}", [_percent(result.ap_by_iou[iou]) for result in scores.values()])
    if per_class:
        for category in next(iter(scores.values())).ap_by_class:
            yield _line(category, [_percent(result.ap_by_class[category]) for result in scores.values()])


def quality_lines(quality: Quality, per_class: bool = False) -> Iterator[str]:
    """Precision and recall of masks at IoU 0.50 and a score, calibration, and what is taken for what."""
    best, whole = quality.whole.half.best_f1(), quality.whole
    yield ""
    yield _line("masks at IoU 0.50", ["score", "precision", "recall", "F1", "objects"])
    rows = [("all: best F1", best)]
    if best is None or quality.score != whole.half.rounded(best.score):
        rows.append(("all: at the score", whole.half.at(quality.score)))
    for label, point in rows:
        yield _line(label, [*_point_cells(point), str(whole.objects)])
    if per_class:
        for name, one in quality.classes.items():
            yield _line(f"{name}: best F1", [*_point_cells(one.half.best_f1()), str(one.objects)])
    if whole.detections:
        error = 100 * whole.calibration.expected_error
        yield f"a score differs from the share of right masks by {error:.1f} points on average"
    pairs = quality.confusion.pairs()
    for title, found in (
        ("taken for another class", [pair for pair in pairs if BACKGROUND not in pair[:2]]),
        ("not found", [pair for pair in pairs if pair[1] == BACKGROUND]),
        ("found where nothing is", [pair for pair in pairs if pair[0] == BACKGROUND]),
    ):
        if found:
            count = sum(pair[2] for pair in found)
            yield f"{title} at score {quality.score:g}: {count} ({_some_pairs(found)})"


def _point_cells(point: Point | None) -> list[str]:
    if point is None:
        return ["—"] * 4
    return [f"{point.score:.3f}", *(_percent(value) for value in (point.precision, point.recall, point.f1))]


def _some_pairs(pairs: list[tuple[str, str, int]]) -> str:
    shown = [
        f"{truth} as {detected} {count}"
        if BACKGROUND not in (truth, detected)
        else f"{detected if truth == BACKGROUND else truth} {count}"
        for truth, detected, count in pairs[:_CONFUSIONS_SHOWN]
    ]
    return ", ".join(shown) + (", …" if len(pairs) > len(shown) else "")


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<24}" + "".join(f"{cell:>10}" for cell in cells)


def _percent(value: float) -> str:
    return "—" if value < 0 else f"{100 * value:.2f}"
