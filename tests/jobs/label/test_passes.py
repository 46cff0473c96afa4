"""Which units a run tries again, and when one image at a time, with a pipeline that follows a script."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.label.fence import NoFence
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.bundles import MissingUnits
from jobs.label.pipeline.passes import Backlog, Passes
from jobs.label.pipeline.publish import Publisher
from jobs.label.pipeline.stages import ONE_IMAGE_AT_A_TIME, WHOLE_UNITS, PassMode
from jobs.label.pipeline.unit import UnitRecord
from jobs.runtime.progress import LabelProgress
from jobs.table.output import Output


class ScriptedPool:
    """Answers each unit with what `outcome(unit, mode)` says, and remembers what it was asked."""

    def __init__(self, outcome, units_at_once: int = 2):
        self.outcome, self.asked, self.units_at_once = outcome, [], units_at_once

    def run(self, missing: MissingUnits, mode: PassMode, grow) -> Iterator[UnitRecord]:
        for unit in list(missing):
            self.asked.append((unit, mode))
            if (record := self.outcome(unit, mode)) is not None:
                yield record


class RememberingPublisher(Publisher):
    def __init__(self):
        super().__init__(Output("/nowhere"), {}, NoFence())
        self.published: list[int] = []

    def submit(self, part: Part) -> None:
        self.published.append(part.number)


def passes(pool, units: int, staged=frozenset()) -> tuple[Passes, RememberingPublisher]:
    publisher = RememberingPublisher()
    progress = LabelProgress(units, 0)
    backlog = Backlog((Part(0, units, units),), frozenset(staged), images=units, done=0)
    return Passes(pool, backlog, publisher, progress, NoFence()), publisher


def test_a_part_is_published_once_when_its_last_unit_is_committed():
    pool = ScriptedPool(lambda unit, mode: UnitRecord(unit, images=1))
    run, publisher = passes(pool, 5, staged={0, 3})
    assert run.run() == []
    assert [unit for unit, _ in pool.asked] == [1, 2, 4]
    assert publisher.published == [0]
    assert run.totals.images == 3


def test_what_died_in_the_first_pass_is_tried_one_image_at_a_time():
    def outcome(unit: int, mode: PassMode) -> UnitRecord | None:
        return UnitRecord(unit, images=1) if mode == ONE_IMAGE_AT_A_TIME or unit != 2 else None

    run, publisher = passes(pool := ScriptedPool(outcome), 4)
    assert run.run() == []
    assert pool.asked[-1] == (2, ONE_IMAGE_AT_A_TIME)
    assert publisher.published == [0]


def test_a_unit_that_two_actors_committed_counts_once():
    class Twice(ScriptedPool):
        def run(self, missing, mode, grow):
            for record in super().run(missing, mode, grow):
                yield record
                yield record

    run, publisher = passes(Twice(lambda unit, mode: UnitRecord(unit, images=7)), 3)
    assert run.run() == []
    assert run.totals.images == 21
    assert publisher.published == [0]


def test_a_store_that_is_gone_ends_the_run_early():
    def outcome(unit: int, mode: PassMode) -> UnitRecord:
        return UnitRecord(unit, images=1, problem="no answer", unreachable=True)

    run, publisher = passes(pool := ScriptedPool(outcome), 100)
    assert len(run.run()) == 100
    assert len(pool.asked) < 20
    assert publisher.published == []
    assert not run.store_answered
    assert all(problem.unreachable for problem in run.problems.values())


def test_an_outage_that_meets_every_task_in_flight_is_not_the_end_of_the_store():
    """100 decode tasks at once all fail in the same short outage; the units after them come through."""

    def outcome(unit: int, mode: PassMode) -> UnitRecord:
        return (
            UnitRecord(unit, problem="time-out", unreachable=True) if unit < 100 and mode == WHOLE_UNITS else ok(unit)
        )

    def ok(unit: int) -> UnitRecord:
        return UnitRecord(unit, images=1)

    run, _ = passes(ScriptedPool(outcome, units_at_once=100), 150)
    assert run.run() == []
    assert run.store_answered
