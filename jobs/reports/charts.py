"""Histograms as plain data for the page's template, which draws them as SVG and repeats them as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.reports.statistics import MOST_INSTANCES, SCORE_BINS, Numbers


@dataclass(frozen=True)
class Bar:
    """One bar: what it counts, how much, its height as a share of the highest, and whether its label is shown."""

    label: str
    value: int
    height: float
    tick: bool


@dataclass(frozen=True)
class Chart:
    """A histogram; `axis` says what its bars are by, with the unit."""

    title: str
    axis: str
    summary: str
    bars: tuple[Bar, ...]


def charts(numbers: Numbers) -> list[Chart]:
    """The three histograms of the whole table; without pictures there are none."""
    if not numbers.ok:
        return []
    return [per_picture_chart(numbers), score_chart(numbers), area_chart(numbers)]


def per_picture_chart(numbers: Numbers) -> Chart:
    counts = numbers.per_picture
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    width = max(1, -(-(last + 1) // 25))
    starts = range(0, last + 1, width)
    labels = [_span(start, min(start + width - 1, MOST_INSTANCES)) for start in starts]
    mean = numbers.instances / numbers.ok
    summary = f"{mean:.1f} on average; {int(counts[0]):,} pictures with none"
    values = [int(counts[start : start + width].sum()) for start in starts]
    return Chart("Instances per picture", "instances in one picture", summary, _bars(labels, values, 5))


def score_chart(numbers: Numbers) -> Chart:
    labels = [f"{i / SCORE_BINS:.2f}–{(i + 1) / SCORE_BINS:.2f}" for i in range(SCORE_BINS)]
    below_half = int(numbers.scores[: SCORE_BINS // 2].sum())
    share = below_half / max(numbers.instances, 1)
    return Chart("Scores", "score of an instance", f"{share:.0%} below 0.5", _bars(labels, numbers.scores.tolist(), 4))


def area_chart(numbers: Numbers) -> Chart:
    used = np.flatnonzero(numbers.areas)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    labels = [f"{_pixels(1 << i)}–{_pixels((2 << i) - 1)}" for i in range(first, last + 1)]
    small = int(numbers.areas[:10].sum()) / max(numbers.instances, 1)
    values = numbers.areas[first : last + 1].tolist()
    return Chart("Areas", "mask area in pixels, by doublings", f"{small:.0%} below 32 × 32", _bars(labels, values, 3))


def _bars(labels: Sequence[str], values: Sequence[int], tick_every: int) -> tuple[Bar, ...]:
    highest = max([*values, 1])
    return tuple(
        Bar(label, value, value / highest, position % tick_every == 0)
        for position, (label, value) in enumerate(zip(labels, values, strict=True))
    )


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _pixels(count: int) -> str:
    if count >= 1 << 20:
        return f"{count / (1 << 20):.3g} Mpx"
    return f"{count / 1024:.3g} kpx" if count >= 10_000 else str(count)
