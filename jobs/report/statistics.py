"""The numbers of a label table. They are counted by piece, from small columns, and can be added in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.table.read import flatten_instances
from jobs.table.schema import STATUS_OK

#: the columns that the numbers need: all but the masks
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
#: images with this many instances or more are counted together
MOST_INSTANCES = 100
#: an instance's size is log2 of its share of the image, from 2⁻²⁴ (one pixel of 16 million) to 1
SIZE_LOG2 = (-24.0, 0.0)
SIZE_BINS = 96
#: bins of the mask area in pixels, by powers of two
AREA_BINS = 26
_EXAMPLES = 5
_ERROR_KINDS = 50


@dataclass
class ClassNumbers:
    """The numbers of one class: its instances, the images that have it, and histograms of scores and sizes."""

    name: str
    instances: int = 0
    images: int = 0
    score_sum: float = 0.0
    scores: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(SIZE_BINS, np.int64))

    @property
    def mean_score(self) -> float:
        return self.score_sum / self.instances if self.instances else 0.0

    def add(self, other: ClassNumbers) -> None:
        self.instances += other.instances
        self.images += other.images
        self.score_sum += other.score_sum
        self.scores = self.scores + other.scores
        self.sizes = self.sizes + other.sizes


@dataclass
class Failures:
    """The failed images of one status and reason: how many, and the first few ids."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Failures) -> None:
        self.count += other.count
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]


@dataclass
class Numbers:
    """The numbers of a table or of a piece.

    `per_image[n]` counts images with n instances; `areas[b]` counts instances from 2^b to 2^(b+1) - 1 pixels.
    """

    images: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[tuple[str, str], Failures] = field(default_factory=dict)
    per_image: np.ndarray = field(default_factory=lambda: np.zeros(MOST_INSTANCES + 1, np.int64))
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
        self.images += other.images
        self.statuses.update(other.statuses)
        for reason, failures in other.failures.items():
            # reasons may contain file names; a limit keeps the page from growing with them
            known = (
                reason if reason in self.failures or len(self.failures) < _ERROR_KINDS else (reason[0], "other reasons")
            )
            self.failures.setdefault(known, Failures()).add(failures)
        self.per_image = self.per_image + other.per_image
        self.scores = self.scores + other.scores
        self.areas = self.areas + other.areas
        for label, numbers in other.classes.items():
            self.classes.setdefault(label, ClassNumbers(numbers.name)).add(numbers)

    def size_medians(self) -> dict[int, tuple[float, float]]:
        """By label, for classes with 20 instances or more: median and robust spread of log2(size)."""
        found = {label: numbers.sizes for label, numbers in self.classes.items() if numbers.instances >= 20}
        return {label: _median_and_spread(sizes) for label, sizes in found.items()}


def size_log2(areas: np.ndarray, image_areas: np.ndarray) -> np.ndarray:
    """log2 of each instance's share of its image, clipped to SIZE_LOG2. Both arguments are (n,), in pixels."""
    share = np.maximum(areas, 1) / np.maximum(image_areas, 1)
    return np.log2(share).clip(*SIZE_LOG2)


def numbers_of_batch(batch: pa.RecordBatch) -> Numbers:
    """The numbers of a batch, which must have NUMBER_COLUMNS."""
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
    numbers.per_image += np.bincount(np.minimum(counts[ok], MOST_INSTANCES), minlength=MOST_INSTANCES + 1)
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
            images=len(np.unique(rows[mine])),
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
    """Of a histogram: the median, and the interquartile range scaled to a standard deviation."""
    low, high = SIZE_LOG2
    centres = low + (np.arange(SIZE_BINS) + 0.5) * (high - low) / SIZE_BINS
    cumulative = np.cumsum(sizes) / sizes.sum()
    quarter, median, three_quarters = (centres[np.searchsorted(cumulative, q)] for q in (0.25, 0.5, 0.75))
    # at least half a doubling: in a class of equal sizes, a slightly larger instance is not odd
    return float(median), max(0.5, float(three_quarters - quarter) / 1.349)


@dataclass(frozen=True)
class Bar:
    """One bar of a chart. `height` is relative to the highest bar; `tick` says whether the label is shown below it."""

    label: str
    value: int
    height: float
    tick: bool


@dataclass(frozen=True)
class Chart:
    """A histogram. `axis` names the quantity of the bars' labels, with its unit."""

    title: str
    axis: str
    summary: str
    bars: tuple[Bar, ...]


def charts(numbers: Numbers) -> list[Chart]:
    """The three histograms of the whole table; none where no image has status "ok"."""
    if not numbers.ok:
        return []
    return [per_image_chart(numbers), score_chart(numbers), area_chart(numbers)]


def per_image_chart(numbers: Numbers) -> Chart:
    counts = numbers.per_image
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    width = max(1, -(-(last + 1) // 25))
    starts = range(0, last + 1, width)
    labels = [_span(start, min(start + width - 1, MOST_INSTANCES)) for start in starts]
    mean = numbers.instances / numbers.ok
    summary = f"{mean:.1f} on average; {int(counts[0]):,} images with none"
    values = [int(counts[start : start + width].sum()) for start in starts]
    return Chart("Instances per image", "instances in one image", summary, _bars(labels, values, 5))


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
