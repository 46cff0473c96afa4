"""Numbers of a whole label table, gathered piece by piece from its small columns and added up in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.table.read import flatten_instances
from jobs.table.schema import STATUS_OK

#: what the numbers are made from; everything but the masks
NUMBER_COLUMNS = (
    "image_id",
    "status",
    "error",
    "height",
    "width",
    "instances.label",
    "instances.category",
    "instances.score",
    "instances.bbox",
    "instances.area",
)

SCORE_BINS = 20
#: instances per picture beyond this are counted together
MOST_INSTANCES = 100
#: an instance's size is log2 of its share of the picture: from 2⁻²⁴ (one pixel of 16 million) to all of it
SIZE_LOG2 = (-24.0, 0.0)
SIZE_BINS = 96
#: area in pixels, by powers of two, as people know it
AREA_BINS = 26
_EXAMPLES = 5
_ERROR_KINDS = 50


@dataclass
class ClassNumbers:
    """Of one class: instances, pictures that have it, and how scores and sizes spread."""

    name: str
    instances: int = 0
    pictures: int = 0
    score_sum: float = 0.0
    scores: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(SIZE_BINS, np.int64))

    @property
    def mean_score(self) -> float:
        return self.score_sum / self.instances if self.instances else 0.0

    def add(self, other: ClassNumbers) -> None:
        self.instances += other.instances
        self.pictures += other.pictures
        self.score_sum += other.score_sum
        self.scores = self.scores + other.scores
        self.sizes = self.sizes + other.sizes


@dataclass
class Failures:
    """Pictures of one status and reason: how many, and the first few ids."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Failures) -> None:
        self.count += other.count
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]


@dataclass
class Numbers:
    """Of a table or a piece of it. `per_picture[n]`: pictures with n instances; `areas[b]`: instances of 2^b px on."""

    pictures: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[tuple[str, str], Failures] = field(default_factory=dict)
    per_picture: np.ndarray = field(default_factory=lambda: np.zeros(MOST_INSTANCES + 1, np.int64))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(AREA_BINS, np.int64))
    classes: dict[int, ClassNumbers] = field(default_factory=dict)

    @property
    def ok(self) -> int:
        return self.statuses[STATUS_OK]

    @property
    def instances(self) -> int:
        return int(self.scores.sum())

    def add(self, other: Numbers) -> None:
        self.pictures += other.pictures
        self.statuses.update(other.statuses)
        for reason, failures in other.failures.items():
            # reasons with a file name in them must not make the page grow without bound
            known = (
                reason if reason in self.failures or len(self.failures) < _ERROR_KINDS else (reason[0], "other reasons")
            )
            self.failures.setdefault(known, Failures()).add(failures)
        self.per_picture = self.per_picture + other.per_picture
        self.scores = self.scores + other.scores
        self.areas = self.areas + other.areas
        for label, numbers in other.classes.items():
            self.classes.setdefault(label, ClassNumbers(numbers.name)).add(numbers)

    def size_medians(self) -> dict[int, tuple[float, float]]:
        """Per class with 20 instances or more: median of log2(size) and a robust spread, both in doublings."""
        found = {label: numbers.sizes for label, numbers in self.classes.items() if numbers.instances >= 20}
        return {label: _median_and_spread(sizes) for label, sizes in found.items()}


def size_log2(areas: np.ndarray, picture_areas: np.ndarray) -> np.ndarray:
    """log2 of each instance's share of its picture, within SIZE_LOG2; both arguments (n,) in pixels."""
    share = np.maximum(areas, 1) / np.maximum(picture_areas, 1)
    return np.log2(share).clip(*SIZE_LOG2)


def numbers_of_batch(batch: pa.RecordBatch) -> Numbers:
    """The numbers of a batch that has NUMBER_COLUMNS."""
    numbers = Numbers(batch.num_rows)
    statuses = batch["status"].to_pylist()
    numbers.statuses.update(statuses)
    for image_id, status, error in zip(
        batch["image_id"].to_pylist(), statuses, batch["error"].to_pylist(), strict=True
    ):
        if status != STATUS_OK:
            numbers.failures.setdefault((status, error or "no reason given"), Failures()).add(Failures(1, [image_id]))
    ends, instances = flatten_instances(batch)
    counts = np.diff(ends)
    ok = np.array([status == STATUS_OK for status in statuses], bool)
    numbers.per_picture += np.bincount(np.minimum(counts[ok], MOST_INSTANCES), minlength=MOST_INSTANCES + 1)
    if not len(instances):
        return numbers
    rows = np.repeat(np.arange(batch.num_rows), counts)
    pixels = _float_column(batch, "height") * _float_column(batch, "width")
    labels = instances.field("label").to_numpy()
    scores = instances.field("score").to_numpy()
    areas = instances.field("area").to_numpy()
    score_bins = np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
    size_bins = _size_bins(size_log2(areas, pixels[rows]))
    numbers.scores += np.bincount(score_bins, minlength=SCORE_BINS)
    numbers.areas += np.bincount(np.log2(np.maximum(areas, 1)).astype(int).clip(0, AREA_BINS - 1), minlength=AREA_BINS)
    names = dict(zip(labels.tolist(), instances.field("category").to_pylist(), strict=True))
    for label in np.unique(labels).tolist():
        mine = labels == label
        numbers.classes[label] = ClassNumbers(
            name=names[label],
            instances=int(mine.sum()),
            pictures=len(np.unique(rows[mine])),
            score_sum=float(scores[mine].sum(dtype=np.float64)),
            scores=np.bincount(score_bins[mine], minlength=SCORE_BINS),
            sizes=np.bincount(size_bins[mine], minlength=SIZE_BINS),
        )
    return numbers


def _float_column(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return np.nan_to_num(batch[name].to_numpy(zero_copy_only=False).astype(np.float64))


def _size_bins(sizes: np.ndarray) -> np.ndarray:
    low, high = SIZE_LOG2
    return np.minimum(((sizes - low) / (high - low) * SIZE_BINS).astype(int), SIZE_BINS - 1)


def _median_and_spread(sizes: np.ndarray) -> tuple[float, float]:
    """From a histogram: the median, and a quarter-to-three-quarters range scaled to a standard deviation."""
    low, high = SIZE_LOG2
    centres = low + (np.arange(SIZE_BINS) + 0.5) * (high - low) / SIZE_BINS
    cumulative = np.cumsum(sizes) / sizes.sum()
    quarter, median, three_quarters = (centres[np.searchsorted(cumulative, q)] for q in (0.25, 0.5, 0.75))
    # never below half a doubling: a class of one size must not make every neighbour an oddity
    return float(median), max(0.5, float(three_quarters - quarter) / 1.349)


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
