"""The model actors of a run, and the driver's side of the pipeline: bundles out, commit records in.

The pool lives as long as the run. All actors are requested at once: Ray starts those that the cluster has room for, and
an autoscaler adds nodes for the others. An actor whose process or node died is replaced by a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray
from ray.util.client import ray as client

from jobs.label.pipeline.actor import ModelActor, Pipeline, last_line
from jobs.label.pipeline.bundles import Bundles, MissingUnits
from jobs.label.pipeline.stages import PassMode
from jobs.label.pipeline.unit import UnitRecord
from jobs.runtime.errors import JobError
from jobs.runtime.logs import in_worker
from jobs.table.output import Output

log = logging.getLogger(__name__)

#: how long the driver gathers records before it takes them in together
_GATHER_SECONDS = 0.25
#: a cluster of fixed size counts as stuck if no record and no new actor comes for this long
_NO_PROGRESS_SECONDS = 600.0
#: actors that may die without a record between their deaths, for each actor of the pool
_DEATHS_IN_A_ROW = 3


@dataclass(eq=False)
class _Member:
    """One actor. `starting` refers to a call that ends when the model is loaded; it is None from then on."""

    actor: Any
    starting: ray.ObjectRef | None
    calls: list[_Call] = field(default_factory=list)


@dataclass(eq=False)
class _Call:
    """A bundle that an actor works on: where its records come from, and the units that have none yet."""

    member: _Member
    records: ray.ObjectRefGenerator | ray.ObjectRef
    units: set[int]

    def take(self) -> list[UnitRecord]:
        """The records that have come. Raises `StopIteration` where there are no more."""
        # Ray Client does not stream results: there all records of a bundle come at once
        reference = next(self.records) if isinstance(self.records, ray.ObjectRefGenerator) else self.records
        records: list[UnitRecord] = ray.get(reference)
        return records


class ModelPool:
    """Labels units on model actors, which are made at the first need and end with the `with` block."""

    def __init__(self, pipeline: Pipeline, units_per_bundle: int) -> None:
        self._pipeline = dataclasses.replace(pipeline, make_predictor=in_worker(pipeline.make_predictor))
        self._units_per_bundle = units_per_bundle
        self._members: list[_Member] = []
        self._calls: dict[ray.ObjectRefGenerator | ray.ObjectRef, _Call] = {}
        self._deaths = 0
        self._progress = time.monotonic()

    def __enter__(self) -> ModelPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.clear()
        for member in self._members:
            # where the cluster is gone, this must not hide why the run ends
            with contextlib.suppress(Exception):
                ray.kill(member.actor)
        self._members.clear()

    @property
    def output(self) -> Output:
        """The OUTPUT of the run, which also has the manifest."""
        return self._pipeline.output

    @property
    def units_at_once(self) -> int:
        """How many units are fetched and decoded at the same time, at most."""
        return self._pipeline.plan.decode_tasks

    def run(self, missing: MissingUnits, mode: PassMode, grow: Callable[[], bool]) -> Iterator[UnitRecord]:
        """Label the missing units and yield their records. A unit whose actor died each time yields none.

        The caller may remove units from `missing` meanwhile. `grow` is called often; it may add parts to `missing`, and
        returns whether more may come. Raises `JobError` where no actor can go on.
        """
        plan = self._pipeline.plan
        each = mode.bundles_per_actor or plan.bundles_per_actor
        most = self._units_per_bundle if mode.bundles_per_actor is None else 1
        bundles = Bundles(missing, most, at_once=each * plan.max_actors)
        self._progress = time.monotonic()
        while True:
            growing = grow()
            while len(self._members) < min(plan.max_actors, len(missing)):
                self._members.append(self._new_member())
            self._deal(bundles, each, mode)
            if not (self._calls or growing or bundles.any_now()):
                return
            yield from self._gather(bundles)
            if growing and not self._calls:
                # it is the lake that is waited for
                self._progress = time.monotonic()

    def _new_member(self) -> _Member:
        plan = self._pipeline.plan
        actor = (
            ray.remote(ModelActor)
            .options(
                num_cpus=plan.actor_cpus,
                num_gpus=plan.actor_gpus,
                max_concurrency=plan.bundles_per_actor + 1,
            )
            .remote(self._pipeline)
        )
        return _Member(actor, actor.ready.remote())

    def _deal(self, bundles: Bundles, each: int, mode: PassMode) -> None:
        """Give every started actor up to `each` bundles, in turns."""
        waiting = [member for member in self._members if member.starting is None and len(member.calls) < each]
        while waiting:
            for member in waiting:
                bundle = bundles.take()
                if bundle is None:
                    return
                if client.is_connected():
                    records = member.actor.label_all.remote(bundle.units, mode)
                else:
                    records = member.actor.label.options(num_returns="streaming").remote(bundle.units, mode)
                call = _Call(member, records, set(bundle.units))
                member.calls.append(call)
                self._calls[records] = call
            waiting = [member for member in waiting if len(member.calls) < each]

    def _gather(self, bundles: Bundles) -> Iterator[UnitRecord]:
        """Wait a moment and take in what has come: records, actors that started, actors that died."""
        starting = {member.starting: member for member in self._members if member.starting is not None}
        waiting = [*starting, *self._calls]
        if not waiting:
            time.sleep(_GATHER_SECONDS)
            return
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_GATHER_SECONDS)
        if not ready:
            self._check_progress()
        for reference in ready:
            if (member := starting.get(reference)) is not None:
                self._take_start(member, bundles)
            elif (call := self._calls.get(reference)) is not None:
                yield from self._take_records(call, bundles)

    def _take_start(self, member: _Member, bundles: Bundles) -> None:
        try:
            ray.get(member.starting)
        except ray.exceptions.RayError as error:
            self._replace(member, error, bundles)
        else:
            member.starting = None
            self._progress = time.monotonic()

    def _take_records(self, call: _Call, bundles: Bundles) -> Iterator[UnitRecord]:
        try:
            records = call.take()
        except ray.exceptions.RayActorError as error:
            self._replace(call.member, error, bundles)
            return
        except (ray.exceptions.RayError, StopIteration) as error:
            self._end(call)
            yield from (UnitRecord(unit, problem=last_line(error)) for unit in sorted(call.units))
            return
        for record in records:
            call.units.discard(record.unit)
            if record.problem is None:
                self._deaths = 0
            self._progress = time.monotonic()
        if not call.units:
            self._end(call)
        yield from records

    def _end(self, call: _Call) -> None:
        del self._calls[call.records]
        call.member.calls.remove(call)

    def _replace(self, member: _Member, error: ray.exceptions.RayError, bundles: Bundles) -> None:
        """Put a new actor in the place of one that died. Raises `JobError` where new ones would die as well."""
        self._deaths += 1
        if getattr(error, "actor_init_failed", False) or self._deaths > _DEATHS_IN_A_ROW * len(self._members):
            raise JobError(f"the pipeline stopped: {last_line(error)}; run the same command again to go on") from error
        log.warning("a model actor died and is started again: %s", last_line(error))
        for call in list(member.calls):
            self._end(call)
            bundles.give_back(call.units)
        # where only its node cannot be reached, it may still live
        ray.kill(member.actor)
        self._members[self._members.index(member)] = self._new_member()

    def _check_progress(self) -> None:
        """Raises `JobError` where nothing has come for long, in a cluster that does not grow."""
        silent = time.monotonic() - self._progress
        if not self._pipeline.plan.grows and silent > _NO_PROGRESS_SECONDS:
            raise JobError(
                f"the pipeline stopped: no unit was committed for {silent:.0f} s; run the same command again to go on"
            )
