"""One run of `yolact label`, from flags to exit code: lake, identity, lease, manifest, passes, books."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jobs import lake, storage
from jobs.label.fence import TAKEN_OVER
from jobs.label.identity import make_identity
from jobs.label.lease import Lease
from jobs.label.manifest.listing import (
    LakeState,
    compare,
    finished_run,
    listing_digest,
    parts_digest,
    report_changed,
)
from jobs.label.manifest.parts import Generation, Part, Sizes, all_parts, read_generations, remove_strays
from jobs.label.options import check_options
from jobs.label.record_file import RecordWriter
from jobs.lake import ParquetColumns, Source
from jobs.runtime.errors import EXIT_FAILED, EXIT_OK, EXIT_RUN_AGAIN, EXIT_TOO_MANY_BAD_IMAGES, JobError
from jobs.runtime.logs import configure_logging
from jobs.runtime.metrics import JobMetrics
from jobs.runtime.model_source import ModelSource, resolve_model
from jobs.runtime.options import parse_count_range
from jobs.runtime.ray_session import stopped_by_sigterm
from jobs.table import record as run_record
from jobs.table.output import Output
from jobs.table.record import RunCounts, RunEntry, RunRecord, Thresholds, WeightsFile
from jobs.table.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from jobs.label.options import LabelConfig
    from jobs.label.pipeline.passes import Passes, Totals
    from jobs.label.pipeline.publish import Counts
    from jobs.label.pipeline.stages import UnitPredictor
    from jobs.label.plan import Plan
    from yolact.inference.engine_choice import EngineChoice

log = logging.getLogger(__name__)


def label_lake(config: LabelConfig, *, make_predictor: Callable[[int], UnitPredictor] | None = None) -> int:
    """What `jobs.label.run` does. Needs neither torch nor Ray to see that a finished run has nothing to do.

    `make_predictor` takes the place of the model's own predictor, for measurements: a function or class of a module,
    called in each actor with its CPU threads. It is part of the run's identity, so that its rows never mix with labels.
    """
    configure_logging(config.log_format)
    check_options(config)
    output = Output.at(config.output)
    try:
        for folder in (output.uri, *lake.folders_of(config.inputs)):
            storage.check_reachable(folder)
        passed_over: Counter[str] = Counter()
        sources = lake.expand_inputs(
            config.inputs,
            exclude=output.uri,
            ignored=passed_over,
            any_name=config.any_name,
            columns=ParquetColumns(config.image_column, config.id_column),
        )
        lake.PassedOver(passed_over).report()
        model = resolve_model(config.config, config.weights)
        identity = make_identity(config, model)
        if make_predictor is not None:
            identity["predictor"] = f"{make_predictor.__module__}.{make_predictor.__qualname__}"
        configure_logging(config.log_format, run_record.run_id(output, identity))
        record = run_record.read(output)
        if record is not None:
            run_record.check_identity(output, record, identity)
        if finished := finished_run(output, sources, config.relabel_changed):
            print(f"nothing to do: {output.uri} is finished\n{finished['summary']}")
            return _exit_code(finished["failed"], finished["images"], config.max_error_rate)
        with stopped_by_sigterm(), Lease(output.lease) as lease:
            # read again: another driver may have been at work until the lease was free
            record = run_record.read(output)
            if record is not None:
                run_record.check_identity(output, record, identity)
            begun = replace(record or RunRecord(), passed_over=dict(passed_over))
            return _LabelRun(config, output, sources, model, identity, begun, lease, make_predictor).run()
    except storage.TransientStorageError as error:
        print(f"yolact: {error}; run the same command again", file=sys.stderr)
        return EXIT_RUN_AGAIN


def _exit_code(failed: int, images: int, max_error_rate: float) -> int:
    return EXIT_TOO_MANY_BAD_IMAGES if failed > max_error_rate * images else EXIT_OK


@dataclass
class _LabelRun:
    config: LabelConfig
    output: Output
    sources: list[Source]
    model: ModelSource
    identity: dict[str, Any]
    record: RunRecord
    lease: Lease
    make_predictor: Callable[[int], UnitPredictor] | None

    def run(self) -> int:
        self._entry = RunEntry(started=run_record.now(), versions=run_record.versions())
        self._writer = RecordWriter(self.output, self.lease)
        generations = read_generations(self.output)
        state = compare(self.sources, generations)
        relabel = state.changed if self.config.relabel_changed else []
        # without the objects that keep the labels of what they were, so that the next run reports them again
        unlabelled = set(state.changed) - set(relabel)
        self._labelled = [source for source in self.sources if source not in unlabelled]
        # torch's import and the weights take as long as Ray, whose start mostly waits for processes
        loading = ThreadPoolExecutor(1).submit(self.model.load)

        from jobs.label.engine import device_for, settle_engine
        from jobs.label.plan import make_plan
        from jobs.runtime.cluster import alive_nodes, free_resources, node_groups
        from jobs.runtime.ray_session import ray_session

        # Ray sets its own handler for SIGTERM when it starts, which aborts
        with ray_session(self.config.address), stopped_by_sigterm():
            model = loading.result()
            asked = self.config.num_actors
            actors = None if asked is None else parse_count_range("--num-actors", asked)
            nodes = alive_nodes()
            if len(nodes) > 1 and self.output.is_local:
                log.warning("%s must be a disk that all %d nodes share", self.output.uri, len(nodes))
            plan = make_plan(nodes, device=device_for(self.config), actors=actors, groups=node_groups())
            self._begin(plan, settle_engine(self.config, self.record, plan, nodes))
            if busy := plan.waits_for(free_resources()):
                log.warning("%s", busy)
            generations = self._prepare_manifest(generations, state, relabel)
            return self._label(model, generations, plan)

    def _prepare_manifest(
        self, seen: Sequence[Generation], state: LakeState, relabel: list[Source]
    ) -> list[Generation]:
        """The generations, after what is new was indexed; `state` was found by comparing the lake with `seen`."""
        from jobs.label.manifest.indexing import add_generation
        from jobs.label.manifest.mending import mend
        from jobs.label.manifest.relabel import replace_changed

        # an unfinished run has no marker
        self.lease.delete([self.output.success])
        # read anew: Ray took its time to start
        generations = remove_strays(self.output, self.lease)
        if [generation.version for generation in generations] != [generation.version for generation in seen]:
            raise JobError(TAKEN_OVER)
        nothing_left = not (state.new or relabel) and self._published(generations)
        if nothing_left or not all(generation.ids_checked for generation in generations):
            generations = mend(self.output, generations, self._sizes, self.lease)
        if relabel:
            log.info("indexing %s replaced objects again", f"{len(relabel):,}")
            generations = replace_changed(
                self.output,
                generations,
                relabel,
                sizes=self._sizes,
                columns=self._columns,
                complete=self.config.limit is None,
                fence=self.lease,
            )
        elif state.changed:
            report_changed(state.changed)
        if state.new:
            log.info("indexing %s new objects", f"{len(state.new):,}")
            new = add_generation(
                self.output,
                generations,
                state.new,
                sizes=self._sizes,
                limit=self.config.limit,
                columns=self._columns,
                fence=self.lease,
            )
            generations.append(new)
        return generations

    def _published(self, generations: Sequence[Generation]) -> bool:
        return {part.number for part in all_parts(generations)} <= self.output.published_parts()

    def _begin(self, plan: Plan, choice: EngineChoice) -> None:
        """Bind OUTPUT to this identity, with what the first run settled: later runs keep its precision."""
        network = self.model.config
        self.record = RunRecord(
            status="running",
            run_id=run_record.run_id(self.output, self.identity),
            identity_sha256=run_record.identity_hash(self.identity),
            identity=self.identity,
            model=network.name,
            config=network.to_dict(),
            weights=WeightsFile(storage.without_credentials(self.model.uri), self.model.sha256),
            thresholds=Thresholds(
                self.config.score_threshold, network.nms.iou_threshold, self.identity["max_detections"]
            ),
            nms=self.identity["nms"],
            precision=choice.precision,
            engine=choice.engine,
            engine_reason=choice.reason,
            quantisation=self.record.quantisation,
            class_names=tuple(network.class_names),
            versions=self._entry.versions,
            inputs=tuple(storage.without_credentials(uri) for uri in self.config.inputs),
            passed_over=self.record.passed_over,
            # written now, so that it is there also if this run is killed
            runs=(*self.record.runs, self._entry),
        )
        self._write()
        model = self.model.config.name
        run_id, how = self.record.run_id, choice.describe()
        log.info("run %s: %s, %s on %s, %s", run_id, model, how, plan.device, plan.describe())

    def _write(self, **changes: Any) -> None:
        """Write run.json with other values in some fields of the record."""
        self.record = dataclasses.replace(self.record, **changes)
        self._writer.write(self.record.to_json())

    @property
    def _columns(self) -> ParquetColumns:
        return ParquetColumns(self.config.image_column, self.config.id_column)

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.config.images_per_part, self.config.images_per_unit)

    def _label(self, model: Any, generations: Sequence[Generation], plan: Plan) -> int:
        from jobs.label.engine import predictor_settings
        from jobs.label.pipeline.chain import Pipeline
        from jobs.label.pipeline.passes import Passes
        from jobs.label.pipeline.publish import Publisher
        from jobs.label.pipeline.stages import InputLimits
        from jobs.runtime.progress import LabelProgress

        parts = all_parts(generations)
        published = self.output.published_parts()
        staged = self.output.staged_units()
        todo = [part for part in parts if part.number not in published]
        metadata = {
            "yolact.schema_version": str(SCHEMA_VERSION),
            "yolact.identity": self.record.identity_sha256,
            "yolact.model": self.model.config.name,
        }
        limits = InputLimits(self.config.max_pixels, self.config.max_bytes)
        settings = predictor_settings(
            self.config,
            self.record,
            self.output,
            parts,
            model,
            keep_quantisation=lambda quantisation: self._write(quantisation=quantisation),
            limits=limits,
            columns=self._columns,
            plan=plan,
        )
        pipeline = Pipeline(
            self.output,
            limits,
            self._columns,
            self.model.config.input_size,
            self.make_predictor or settings.make_predictor,
            self.model.config.class_names,
            metadata,
            JobMetrics("label", self.record.run_id),
            plan,
        )
        total = sum(part.images for part in parts)
        done = total - sum(part.images for part in todo)
        publisher = Publisher(self.output, metadata, self.lease.for_workers)
        begin = time.monotonic()
        with LabelProgress(total, done) as progress:
            passes = Passes(pipeline, todo, staged, publisher, progress, self.lease, done)
            # every actor's first unit holds its start
            passes.totals.warm_up = plan.max_actors
            missing = passes.run()
        seconds = time.monotonic() - begin
        entry = self._closed_entry(passes.totals, seconds)
        runs = (*self.record.runs[:-1], entry)
        if missing or publisher.unreachable:
            self._write(status="incomplete", runs=runs)
            return self._incomplete(missing, passes, publisher.unreachable)
        return self._finish(parts, passes, entry, runs)

    def _closed_entry(self, totals: Totals, seconds: float) -> RunEntry:
        return dataclasses.replace(
            self._entry,
            finished=run_record.now(),
            images=totals.images,
            seconds=round(seconds, 3),
            images_per_second=round(totals.images / max(seconds, 1e-3), 3),
            steady=totals.steady(),
            stage_seconds={stage: round(spent, 3) for stage, spent in totals.seconds.items()},
            retries=dict(totals.retries),
        )

    def _incomplete(self, missing: list[int], passes: Passes, unpublished: list[str]) -> int:
        problems = [passes.problems[unit] for unit in missing if unit in passes.problems]
        reasons = [problem.problem for problem in problems] + unpublished
        images = passes.images_in(missing)
        # units whose workers died left no record; those a silent store kept from being tried are no failure
        known = len(problems) == len(missing) or not passes.store_answered
        again = known and all(problem.unreachable for problem in problems)
        print(
            f"yolact: {images:,} images have no labels yet"
            + (f" ({len(unpublished)} parts unpublished)" if unpublished else "")
            + (f"; last reason: {reasons[-1]}" if reasons else "; their workers died")
            + "; run the same command again",
            file=sys.stderr,
        )
        return EXIT_RUN_AGAIN if again else EXIT_FAILED

    def _finish(self, parts: Sequence[Part], passes: Passes, entry: RunEntry, runs: tuple[RunEntry, ...]) -> int:
        """Balance the books and put the marker. Raises `JobError` where they do not balance."""
        from jobs.label.books import balance, write_success

        counts = balance(self.output, parts, self.lease)
        self.lease.delete([found.uri for found in storage.list_objects(self.output.staging)])
        ok = counts.images - counts.failed
        books = RunCounts(counts.images, ok, counts.failed, counts.instances, counts.statuses)
        self._write(status="finished", runs=runs, counts=books)
        summary = self._summary(counts, passes, entry.seconds, len(parts))
        marker = {
            "identity_sha256": self.record.identity_sha256,
            "listing": listing_digest(self._labelled),
            "parts": parts_digest(part.number for part in parts),
            "images": counts.images,
            "failed": counts.failed,
            "summary": summary,
        }
        write_success(self.output, marker, self.lease)
        print(summary)
        return _exit_code(counts.failed, counts.images, self.config.max_error_rate)

    def _summary(self, counts: Counts, passes: Passes, seconds: float, parts: int) -> str:
        failures = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.statuses.items()) if status != "ok")
        retries = sum(passes.totals.retries.values())
        this_run = passes.totals.images
        lines = [
            f"images     {counts.images:,} ({counts.images - counts.failed:,} ok, {counts.failed:,} failed"
            + (f": {failures})" if failures else ")"),
            f"instances  {counts.instances:,}",
            f"this run   {this_run:,} images in {seconds:.1f} s, {this_run / max(seconds, 1e-3):.2f} images/s"
            + (f", {retries:,} retries" if retries else ""),
            f"labels     {self.output.labels} ({parts} file{'s' * (parts != 1)})",
        ]
        return "\n".join(lines)
