"""What runs in the workers: the model actor, and the tasks that fetch and decode for it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass

import pyarrow as pa
import ray

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
from jobs.runtime.metrics import JobMetrics
from jobs.table.output import Output
from jobs.table.schema import STATUS_OK

log = logging.getLogger(__name__)

#: decoded units that wait for the model, for each bundle
_UNITS_AHEAD = 2
#: how often the decode task of a bundle is started again after it died, before the unit it was at is left out
_RETRIES_AFTER_A_CRASH = 2
#: one unit has the network while the actor unpacks another one, or makes its last masks. These threads last as long as
#: the actor, because on a GPU each thread records CUDA graphs of its own
_MODEL_THREADS = 2
#: units of a bundle that are unpacked, labelled or committed at the same time; a commit takes a tenth of a second in S3
_UNITS_AT_ONCE = _MODEL_THREADS + 2
#: records are sent to the driver at most this often
_TELL_SECONDS = 3.0


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


@ray.remote(num_returns="streaming", max_retries=0)
def decode_units(units: Sequence[int], output: Output, read: ReadSettings, mode: PassMode) -> Iterator[pa.Table]:
    """`fetch_and_decode` in a process of its own. It waits while enough of its units wait for the model."""
    yield from fetch_and_decode(units, output=output, read=read, mode=mode)


@ray.remote(max_retries=0)
def start_decoder() -> None:
    """Start a process that has imported this module, for the first decode task."""


class ModelActor:
    """Holds the model and labels bundles, several at a time: while one has the network, others decode and commit."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        # the process of the first decode task starts while the model is loaded
        start_decoder.options(num_cpus=pipeline.plan.decode_cpus).remote()
        self._predictor = pipeline.make_predictor(pipeline.plan.threads)
        self._threads = ThreadPoolExecutor(_MODEL_THREADS, "model")
        # a decode task keeps its CPUs while it waits for the model: with more than its share at once, an actor would
        # take those of another actor, whose model then has nothing to do
        self._decode_turns = threading.Semaphore(pipeline.plan.decode_tasks_per_actor)

    def ready(self) -> None:
        """Return once the model is loaded."""

    def label(self, units: Sequence[int], mode: PassMode) -> Iterator[list[UnitRecord]]:
        """Label the units of one bundle and yield the records of all of them, each once, as they come."""
        labeller = Labeller(self._predictor, self._pipeline.destination, mode, self._threads)
        records: list[UnitRecord] = []
        told = time.monotonic()
        with ThreadPoolExecutor(_UNITS_AT_ONCE, "unit") as pool:
            for done in self._finished(self._decoded(list(units), mode), labeller, pool):
                for record in done:
                    self._count(record)
                    self._log(record)
                records += done
                if time.monotonic() - told > _TELL_SECONDS:
                    yield records
                    records, told = [], time.monotonic()
        yield records

    def _finished(
        self, decoded: Iterable[pa.Table | UnitRecord], labeller: Labeller, pool: Executor
    ) -> Iterator[list[UnitRecord]]:
        """Label the units side by side, so that a unit has the network while another one is committed."""
        working: set[Future[UnitRecord]] = set()
        for packed in decoded:
            if isinstance(packed, UnitRecord):
                yield [packed]
                continue
            working.add(pool.submit(labeller, packed))
            enough = len(working) >= _UNITS_AT_ONCE
            done, working = wait(working, None if enough else 0.0, FIRST_COMPLETED)
            yield [future.result() for future in done]
        for future in as_completed(working):
            yield [future.result()]

    def label_all(self, units: Sequence[int], mode: PassMode) -> list[UnitRecord]:
        """The same, in one list at the end."""
        return [record for records in self.label(units, mode) for record in records]

    def _decoded(self, units: list[int], mode: PassMode) -> Iterator[pa.Table | UnitRecord]:
        """Each unit in order, as packed by `fetch_and_decode`; a record with a problem if its process died."""
        crashes = 0
        while units:
            try:
                for packed in self._decode_task(units, mode):
                    yield packed
                    units, crashes = units[1:], 0
            except ray.exceptions.RayError as error:
                # the process or its node died, or the stage itself failed; the next try begins with the unit it was at
                crashes += 1
                if crashes > _RETRIES_AFTER_A_CRASH:
                    yield UnitRecord(units[0], problem=f"decoding died: {last_line(error)}")
                    units, crashes = units[1:], 0

    def _decode_task(self, units: Sequence[int], mode: PassMode) -> Iterator[pa.Table]:
        """Each unit as packed by `fetch_and_decode`, from one decode task. Raises `RayError` where the task died."""
        with contextlib.ExitStack() as turn:
            turn.enter_context(self._decode_turns)
            stream = decode_units.options(
                num_cpus=self._pipeline.plan.decode_cpus, _generator_backpressure_num_objects=_UNITS_AHEAD
            ).remote(units, self._pipeline.output, self._pipeline.read, mode)
            for come, reference in enumerate(stream, start=1):
                if come + _UNITS_AHEAD >= len(units):
                    # the task makes its last units without waiting, so the next bundle's task may start
                    turn.close()
                yield ray.get(reference)

    def _log(self, record: UnitRecord) -> None:
        fields = {name: value for name, value in asdict(record).items() if value not in (None, {}, False)}
        if record.problem is None:
            log.info("unit %d: %d images", record.unit, record.images, extra={"fields": fields})
        else:
            log.warning("unit %d did not come through: %s", record.unit, record.problem, extra={"fields": fields})

    def _count(self, record: UnitRecord) -> None:
        metrics = self._pipeline.metrics
        for stage, seconds in record.seconds.items():
            metrics.stage_seconds(stage, seconds)
        for reason, count in record.retries.items():
            metrics.retry(reason, count)
        metrics.gpu_memory()
        if record.problem is None:
            ok = record.images - sum(record.failures.values())
            for status, count in {STATUS_OK: ok, **record.failures}.items():
                metrics.images(count, status)
            metrics.instances(record.instances)
            # with tiles, an image is several inputs of the network
            batches = -(-record.inputs // self._predictor.batch_size)
            metrics.batch_fill(record.inputs, batches * self._predictor.batch_size)


def last_line(error: Exception) -> str:
    """The last line of a Ray error, whose text is the whole traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
