"""The numbers of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from yolact.coco.evaluation import CocoScores

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


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<24}" + "".join(f"{cell:>10}" for cell in cells)


def _percent(value: float) -> str:
    return "—" if value < 0 else f"{100 * value:.2f}"
