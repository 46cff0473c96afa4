"""One run of `yolact label` that has work to do: Ray, manifest, passes over the missing units, and how it ended."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs import storage
from jobs.label.books import balance, can_run_again, closed_entry, describe_missing, summarise, write_success
from jobs.label.engine import device_for, predictor_settings, settle_engine
from jobs.label.fence import TAKEN_OVER
from jobs.label.lease import Lease
from jobs.label.manifest.growth import Growth
from jobs.label.manifest.indexing import (
    Indexing,
    IndexTasks,
    add_generation,
    cut_sources,
    report_passed_over,
)
from jobs.label.manifest.listing import LakeState, compare, listing_digest, parts_digest, report_changed
from jobs.label.manifest.mending import mend
from jobs.label.manifest.parts import Generation, Part, Sizes, all_parts, read_generations, remove_strays
from jobs.label.manifest.relabel import replace_changed
from jobs.label.options import LabelConfig, tile_config
from jobs.label.pipeline.actor import Pipeline
from jobs.label.pipeline.bundles import units_per_bundle
from jobs.label.pipeline.passes import Backlog, Passes, Totals
from jobs.label.pipeline.pool import ModelPool
from jobs.label.pipeline.publish import Publisher
from jobs.label.pipeline.stages import Destination, IndexedLake, InputLimits, ReadSettings, UnitPredictor
from jobs.label.plan import Plan, make_plan
from jobs.label.record_file import RecordWriter
from jobs.label.run_end import RunEnd
from jobs.lake import ParquetColumns, PassedOver, Source
from jobs.runtime.cluster import Node, alive_nodes, free_resources, node_groups
from jobs.runtime.errors import EXIT_FAILED, EXIT_RUN_AGAIN, JobError, exit_code_for_failures
from jobs.runtime.interrupts import stopped_by_sigterm
from jobs.runtime.metrics import JobMetrics
from jobs.runtime.model_source import ModelSource
from jobs.runtime.options import parse_count_range
from jobs.runtime.progress import LabelProgress
from jobs.runtime.ray_session import ray_session
from jobs.table import record as run_record
from jobs.table.output import Output
from jobs.table.policy import Policy
from jobs.table.record import RunCounts, RunEntry, RunRecord, Thresholds, WeightsFile
from jobs.table.schema import SCHEMA_VERSION
from yolact.inference.engine_choice import EngineChoice

if TYPE_CHECKING:
    # the thread that loads the model imports torch, while Ray starts
    from yolact.network.model import Yolact

log = logging.getLogger(__name__)

#: bytes of the files of one unit, about, if images are cut into tiles: all pixels of a unit are then in memory at once
_BYTES_PER_TILED_UNIT = 8 << 20


@dataclass(frozen=True)
class RunInputs:
    """What the command found out before the work begins. `identity` is that of `make_identity`."""

    config: LabelConfig
    output: Output
    sources: Sequence[Source]
    model: ModelSource
    identity: dict[str, Any]
    make_predictor: Callable[[int], UnitPredictor] | None
    """takes the place of the model's own predictor; see `label_lake`"""
    policy: Policy | None = None
    """what `--policy` says of the model's classes"""


class LabelRun:
    """One run, while this driver holds the lease. `record` is run.json as it was found, or an empty one."""

    def __init__(self, inputs: RunInputs, record: RunRecord, lease: Lease) -> None:
        self.config, self.output, self.sources = inputs.config, inputs.output, inputs.sources
        self.model, self.identity, self.make_predictor = inputs.model, inputs.identity, inputs.make_predictor
        self.policy, self.record, self.lease = inputs.policy, record, lease
        self._entry = RunEntry(started=run_record.now(), versions=run_record.versions())
        self._writer = RecordWriter(self.output, self.lease)
        self._labelled: Sequence[Source] = self.sources

    def run(self, loading: Future[Yolact]) -> RunEnd:
        """Label what is missing. `loading` gives the model. Raises `UsageError`, `JobError`."""
        generations = read_generations(self.output)
        state = compare(self.sources, generations)
        relabel = state.changed if self.config.relabel_changed else []
        # without the objects that keep the labels of what they were, so that the next run reports them again
        unlabelled = set(state.changed) - set(relabel)
        if unlabelled:
            self._labelled = [source for source in self.sources if source not in unlabelled]
        # Ray sets its own handler for SIGTERM when it starts, which aborts
        with ray_session(self.config.address), stopped_by_sigterm():
            model = loading.result()
            asked = self.config.num_actors
            actors = None if asked is None else parse_count_range("--num-actors", asked)
            nodes = alive_nodes()
            if len(nodes) > 1 and self.output.is_local:
                log.warning("%s must be a disk that all %d nodes share", self.output.uri, len(nodes))
            plan = make_plan(nodes, device=device_for(self.config), actors=actors, groups=node_groups())
            # asked before a task looks for an engine, because that task itself takes the CPUs of an actor
            if busy := plan.waits_for(free_resources()):
                log.warning("%s", busy)
            self._begin(plan, settle_engine(self.config, self.record, plan, nodes))
            generations = self._prepare_manifest(generations, state, relabel)
            with self._index(generations, state.new, nodes) as growth:
                return self._label(model, growth, plan)

    def _prepare_manifest(
        self, seen: Sequence[Generation], state: LakeState, relabel: list[Source]
    ) -> list[Generation]:
        """The generations, after what is new was indexed; `state` was found by comparing the lake with `seen`."""
        # an unfinished run has no marker
        self.lease.delete([self.output.success])
        # read anew: Ray took its time to start
        generations = remove_strays(self.output, self.lease)
        if [generation.version for generation in generations] != [generation.version for generation in seen]:
            raise JobError(TAKEN_OVER)
        indexing = self._indexing()
        nothing_left = not (state.new or relabel) and self._published(generations)
        if nothing_left or not all(generation.ids_checked for generation in generations):
            generations = mend(self.output, generations, indexing.sizes, self.lease)
        if relabel:
            log.info("indexing %s replaced objects again", f"{len(relabel):,}")
            generations = replace_changed(indexing, generations, relabel)
        elif state.changed:
            report_changed(state.changed)
        return generations

    def _indexing(self) -> Indexing:
        sizes = Sizes(self.config.images_per_part, self.config.images_per_unit)
        if self.config.tile is not None:
            sizes = dataclasses.replace(sizes, bytes_per_unit=_BYTES_PER_TILED_UNIT)
        return Indexing(self.output, sizes, self._columns, self.lease, self.config.limit)

    def _index(self, generations: list[Generation], new: Sequence[Source], nodes: Sequence[Node]) -> Growth:
        """Index the first of the new objects; the others are indexed within the `with` block of what is returned."""
        if not new:
            return Growth(self._indexing(), generations, [])
        log.info("indexing %s new objects", f"{len(new):,}")
        images = sum(part.images for part in all_parts(generations))
        # an int8 network is calibrated on a sample of the whole lake
        chunks = [new] if self.record.precision == "int8" else list(cut_sources(new, images))
        first = add_generation(self._indexing(), generations, chunks[0])
        # while the model's actors and decoding hold all CPUs
        at_once = max(2, int(sum(node.cpus for node in nodes)))
        beside = dataclasses.replace(self._indexing(), tasks=IndexTasks(at_once, cpus=0))
        growth = Growth(beside, [*generations, first.generation], chunks[1:], first.passed_over)
        if len(chunks) == 1:
            # nothing to label is told before the model's actors start
            self._end_of_indexing(growth)
        return growth

    def _end_of_indexing(self, growth: Growth) -> None:
        """Tell what was passed over, once, and remove the index of sources that are not in the lake any more."""
        passed_over, growth.passed_over = PassedOver.together(growth.passed_over), []
        report_passed_over(passed_over, found_any=bool(all_parts(growth.generations)))
        self.lease.delete([entry.uri for entry in storage.list_objects(self.output.index)])

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
            class_names=network.class_names if self.policy is None else self.policy.class_names,
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

    def _label(self, model: Yolact, growth: Growth, plan: Plan) -> RunEnd:
        limits = InputLimits(self.config.max_pixels, self.config.max_bytes)
        read = ReadSettings(limits, self._columns, self.model.config.input_size, tile_config(self.config))
        indexed = IndexedLake(self.output, growth.parts_before, read)
        settings = predictor_settings(
            self.config,
            self.record,
            indexed,
            model,
            plan,
            keep_quantisation=lambda quantisation: self._write(quantisation=quantisation),
        )
        if self.policy is not None:
            settings = dataclasses.replace(settings, score_threshold=self.policy.class_thresholds())
        metadata = {
            "yolact.schema_version": str(SCHEMA_VERSION),
            "yolact.identity": self.record.identity_sha256,
            "yolact.model": self.model.config.name,
        }
        pipeline = Pipeline(
            read,
            Destination(self.output, self.model.config.class_names, metadata, self.policy),
            self.make_predictor or settings.make_predictor,
            JobMetrics("label", self.record.run_id),
            plan,
        )
        backlog = Backlog.of(self.output, indexed.parts)
        publisher = Publisher(self.output, metadata, self.lease.for_workers, most=plan.max_actors)
        begin = time.monotonic()
        with (
            LabelProgress(backlog.images, backlog.done) as progress,
            ModelPool(pipeline, units_per_bundle(indexed.parts)) as pool,
        ):
            passes = Passes(pool, backlog, publisher, progress, self.lease, growth)
            # every actor's first unit holds its start
            passes.totals.warm_up = plan.max_actors
            missing = passes.run()
        seconds = time.monotonic() - begin
        entry = closed_entry(self._entry, passes.totals, seconds)
        runs = (*self.record.runs[:-1], entry)
        if missing or publisher.unreachable:
            self._write(status="incomplete", runs=runs)
            code = EXIT_RUN_AGAIN if can_run_again(missing, passes) else EXIT_FAILED
            return RunEnd(code, complaint=describe_missing(missing, passes, publisher.unreachable))
        self._end_of_indexing(growth)
        return self._finish(all_parts(growth.generations), passes.totals, entry, runs)

    def _finish(self, parts: Sequence[Part], totals: Totals, entry: RunEntry, runs: tuple[RunEntry, ...]) -> RunEnd:
        """Balance the books and put the marker. Raises `JobError` where they do not balance."""
        counts = balance(self.output, parts, self.lease)
        self.lease.delete([found.uri for found in storage.list_objects(self.output.staging)])
        ok = counts.images - counts.failed
        books = RunCounts(counts.images, ok, counts.failed, counts.instances, counts.statuses)
        self._write(status="finished", runs=runs, counts=books)
        summary = summarise(self.output, counts, totals, entry.seconds, len(parts))
        marker = {
            "identity_sha256": self.record.identity_sha256,
            "listing": listing_digest(self._labelled),
            "parts": parts_digest(part.number for part in parts),
            "images": counts.images,
            "failed": counts.failed,
            "summary": summary,
        }
        write_success(self.output, marker, self.lease)
        return RunEnd(exit_code_for_failures(counts.failed, counts.images, self.config.max_error_rate), summary)
