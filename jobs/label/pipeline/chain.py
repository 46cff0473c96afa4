"""The labelling pipeline on Ray Data: units in, commit records out, in one chain."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.util.annotations import RayDeprecationWarning

from jobs.label.pipeline.stages import (
    Destination,
    Labeller,
    PassMode,
    ReadSettings,
    UnitPredictor,
    fetch_and_decode,
)
from jobs.label.pipeline.unit import UnitRecord
from jobs.label.plan import Plan
from jobs.runtime.errors import JobError
from jobs.runtime.logs import in_worker
from jobs.runtime.metrics import JobMetrics
from jobs.table.output import Output
from jobs.table.schema import STATUS_OK

log = logging.getLogger(__name__)

#: units of one execution: limits what the driver and Ray hold, whatever the size of the lake
UNITS_PER_EXECUTION = 20_000
#: how often a block whose process died is tried again, before it is left to the next pass
_RETRIES_AFTER_A_CRASH = 2
#: a cluster of fixed size counts as stuck if it commits no unit for this long
_NO_PROGRESS_SECONDS = 600.0
_NO_LIMIT = -1.0


@dataclass(frozen=True)
class Pipeline:
    """What the stages need. `make_predictor` is called once in each actor, with the actor's number of CPU threads."""

    read: ReadSettings
    destination: Destination
    make_predictor: Callable[[int], UnitPredictor]
    metrics: JobMetrics
    plan: Plan

    @property
    def output(self) -> Output:
        """The OUTPUT of the run, which also has the manifest."""
        return self.destination.output

    @property
    def units_at_once(self) -> int:
        """How many units are fetched and decoded at the same time, at most."""
        return self.plan.decode_tasks

    def run(self, units: Sequence[int], mode: PassMode) -> Iterator[UnitRecord]:
        """Label `units` and yield the record of each one; a unit whose process died yields none.

        Raises `JobError` where Ray stops the execution.
        """
        for first in range(0, len(units), UNITS_PER_EXECUTION):
            yield from self._execute(units[first : first + UNITS_PER_EXECUTION], mode)

    def _execute(self, units: Sequence[int], mode: PassMode) -> Iterator[UnitRecord]:
        configure_ray_data(waits_for_nodes=self.plan.grows)
        with warnings.catch_warnings():
            # Ray 2.60 deprecates `max_retries` on a stage and offers nothing in its place
            warnings.simplefilter("ignore", RayDeprecationWarning)
            records = self._chain(units, mode)
        try:
            for batch in records.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for text in batch["record"].to_pylist():
                    yield UnitRecord.from_json(text)
        except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
            raise JobError(f"the pipeline stopped: {last_line(error)}; run the same command again to go on") from error
        finally:
            # Ray ends an execution's actors when nothing refers to them any more. The error of a failed task refers to
            # itself, so it keeps the actors and their CPUs until it is collected. The next execution needs those CPUs
            del records
            gc.collect()

    def _chain(self, units: Sequence[int], mode: PassMode) -> ray.data.Dataset:
        plan = self.plan
        return (
            # not from_arrow: it starts a task that takes a whole CPU to read each table's schema
            ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
            .map_batches(
                fetch_and_decode,
                batch_size=1,
                batch_format="pyarrow",
                fn_kwargs={"output": self.output, "read": self.read, "mode": mode},
                # Ray warns if the pool allows more tasks than there are units
                compute=TaskPoolStrategy(size=min(plan.decode_tasks, len(units))),
                num_cpus=plan.decode_cpus,
                max_retries=_RETRIES_AFTER_A_CRASH,
            )
            .map_batches(
                ModelActor,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_kwargs={
                    "make_predictor": in_worker(self.make_predictor),
                    "threads": plan.threads,
                    "destination": self.destination,
                    "metrics": self.metrics,
                    "mode": mode,
                },
                compute=ActorPoolStrategy(
                    # A pool of variable size grows only within the present cluster and asks no autoscaler for nodes.
                    # So all actors are requested at once. The autoscaler adds nodes for those that have none
                    size=plan.max_actors,
                    max_concurrent_calls_per_actor=mode.units_per_actor,
                    enable_true_multi_threading=True,
                    max_tasks_in_flight_per_actor=3,
                ),
                num_cpus=plan.actor_cpus,
                num_gpus=plan.actor_gpus,
                max_task_retries=_RETRIES_AFTER_A_CRASH,
            )
        )


class ModelActor:
    """A `Labeller` in an actor's process, with a predictor made there; reports its work to metrics and log."""

    def __init__(
        self,
        *,
        make_predictor: Callable[[int], UnitPredictor],
        threads: int,
        destination: Destination,
        metrics: JobMetrics,
        mode: PassMode,
    ) -> None:
        self._predictor = make_predictor(threads)
        self._labeller = Labeller(self._predictor, destination, mode)
        self._metrics = metrics

    def __call__(self, batch: pa.Table) -> pa.Table:
        record = self._labeller(batch)
        self._count(record)
        self._log(record)
        return record.to_table()

    def _log(self, record: UnitRecord) -> None:
        fields = {name: value for name, value in asdict(record).items() if value not in (None, {}, False)}
        if record.problem is None:
            log.info("unit %d: %d images", record.unit, record.images, extra={"fields": fields})
        else:
            log.warning("unit %d did not come through: %s", record.unit, record.problem, extra={"fields": fields})

    def _count(self, record: UnitRecord) -> None:
        for stage, seconds in record.seconds.items():
            self._metrics.stage_seconds(stage, seconds)
        for reason, count in record.retries.items():
            self._metrics.retry(reason, count)
        self._metrics.gpu_memory()
        if record.problem is None:
            ok = record.images - sum(record.failures.values())
            for status, count in {STATUS_OK: ok, **record.failures}.items():
                self._metrics.images(count, status)
            self._metrics.instances(record.instances)
            batches = -(-ok // self._predictor.batch_size)
            self._metrics.batch_fill(ok, batches * self._predictor.batch_size)


def last_line(error: Exception) -> str:
    """The last line of a Ray error, whose text is the whole traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def configure_ray_data(*, waits_for_nodes: bool = False) -> None:
    """Set what the job relies on in the driver's current context of Ray Data.

    `waits_for_nodes` allows any time without progress, since a spot GPU may take hours to come.
    """
    context = DataContext.get_current()
    # a failed block must not end the execution: its unit is not committed, and the driver counts it as missing
    context.max_errored_blocks = -1
    context.execution_no_progress_timeout_s = _NO_LIMIT if waits_for_nodes else _NO_PROGRESS_SECONDS
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    # the passes count what Ray Data logs as an error, such as a failed task, and report it
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
