"""The two passes of a labelling run over the units that are missing. Parts are published as they fill up.

The first pass labels whole units. The second one tries the units that failed again, one image at a time.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.label.fence import Fence
from jobs.label.manifest.growth import Growth
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.bundles import MissingUnits
from jobs.label.pipeline.pool import ModelPool
from jobs.label.pipeline.publish import Publisher
from jobs.label.pipeline.stages import ONE_IMAGE_AT_A_TIME, WHOLE_UNITS, PassMode
from jobs.label.pipeline.unit import UnitRecord
from jobs.runtime.progress import LabelProgress
from jobs.table import parquet as tables
from jobs.table.output import UNITS_PER_PART, Output
from jobs.table.record import Steady

log = logging.getLogger(__name__)

#: the store counts as gone after at least this many units in a row that it did not answer for, retries included
_UNREACHABLE_IN_A_ROW = 8


@dataclass
class Totals:
    """What the records of this run add up to. The first `warm_up` of them do not count as steady work."""

    warm_up: int = 1
    images: int = 0
    instances: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    _records: int = 0
    _steady_images: int = 0
    _steady_began: float = 0.0
    _last: float = 0.0

    def add(self, record: UnitRecord) -> None:
        self._last = time.time()
        self._records += 1
        if self._records == self.warm_up:
            self._steady_began = self._last
        elif self._records > self.warm_up:
            self._steady_images += record.images
        self.images += record.images
        self.instances += record.instances
        self.failures.update(record.failures)
        self.retries.update(record.retries)
        for stage, seconds in record.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def steady(self) -> Steady:
        """The work after the warm-up."""
        seconds = self._last - self._steady_began if self._steady_images else 0.0
        return Steady(self._steady_images, round(seconds, 3), round(self._steady_began, 3))

    def notes(self) -> str:
        pieces = [f"{count:,} {status}" for status, count in sorted(self.failures.items())]
        if retried := sum(self.retries.values()):
            pieces.append(f"{retried:,} retries")
        return ", ".join(pieces)


@dataclass(frozen=True)
class Backlog:
    """What is left to do: the parts that are not published, their units that are committed, and the counts."""

    parts: tuple[Part, ...]
    staged: frozenset[int]
    images: int
    """of the whole manifest"""
    done: int
    """images of published parts"""

    @classmethod
    def of(cls, output: Output, parts: Sequence[Part]) -> Backlog:
        """The backlog of a run, from the objects under OUTPUT. `parts` are all parts of the manifest."""
        published = output.published_parts()
        staged = output.staged_units()
        left = tuple(part for part in parts if part.number not in published)
        images = sum(part.images for part in parts)
        return cls(left, frozenset(staged), images, images - sum(part.images for part in left))


class Passes:
    """Labels and publishes the parts of a backlog."""

    def __init__(
        self,
        pool: ModelPool,
        backlog: Backlog,
        publisher: Publisher,
        progress: LabelProgress,
        fence: Fence,
        growth: Growth | None = None,
    ) -> None:
        """`growth` adds parts to the backlog while the first pass is under way."""
        self._pool, self._publisher, self._progress, self._fence = pool, publisher, progress, fence
        self._growth = growth
        self._parts = {part.number: part for part in backlog.parts}
        self._missing = MissingUnits(backlog.parts, backlog.staged)
        self._done = backlog.done
        self.totals = Totals()
        self.problems: dict[int, UnitRecord] = {}
        self.store_answered = True

    def run(self) -> list[int]:
        """One pass over all missing units, and one over those that failed; returns the units still missing."""
        for part in self._parts.values():
            if not self._missing.left_in(part.number):
                self._publisher.submit(part)
        self.store_answered = self._pass(WHOLE_UNITS)
        if self.store_answered and self._missing:
            log.info("%d units did not come through; trying them again, one image at a time", len(self._missing))
            self.store_answered = self._pass(ONE_IMAGE_AT_A_TIME)
        self._publisher.drain()
        return sorted(self._missing)

    def _grow(self) -> bool:
        """Take in parts that were indexed meanwhile. Returns whether more may come."""
        if self._growth is None:
            return False
        parts, growing = self._growth.take()
        self._parts.update((part.number, part) for part in parts)
        self._missing.add(parts)
        self._progress.add_total(sum(part.images for part in parts))
        return growing

    def images_in(self, units: Sequence[int]) -> int:
        """How many images `units` hold, from the manifest."""
        wanted = Counter(unit // UNITS_PER_PART for unit in units)
        chosen = set(units)
        total = 0
        for number, count in wanted.items():
            part = self._parts[number]
            if count == part.units:
                total += part.images
            else:
                table = tables.read(self._pool.output.manifest_part(number))
                total += sum(unit in chosen for unit in table["unit"].to_pylist())
        return total

    def _pass(self, mode: PassMode) -> bool:
        """One pass over the missing units. Returns False if the store stopped answering; another run does the rest."""
        in_a_row = 0
        # a short outage fails every unit that is being fetched at that time, and their records arrive in a row
        enough = max(_UNREACHABLE_IN_A_ROW, 2 * self._pool.units_at_once)
        for record in self._pool.run(self._missing, mode, self._grow):
            self._fence.check()
            if record.problem is None:
                in_a_row = 0
                self._committed(record)
            else:
                self.problems[record.unit] = record
                self.totals.retries.update(record.retries)
                in_a_row = in_a_row + 1 if record.unreachable else 0
            self._progress.update(self._done, self.totals.notes())
            self._publisher.poll()
            if in_a_row >= enough:
                log.warning("the store does not answer: %s", record.problem)
                return False
        return True

    def _committed(self, record: UnitRecord) -> None:
        if not self._missing.remove(record.unit):
            return  # two actors had the unit: the first one was taken for dead
        self.totals.add(record)
        self.problems.pop(record.unit, None)
        self._done += record.images
        part = record.unit // UNITS_PER_PART
        if not self._missing.left_in(part):
            self._publisher.submit(self._parts[part])
