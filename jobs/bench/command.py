"""`yolact bench` from options to the table: each round labels the sample, then measures the stages alone."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs import storage
from jobs.bench.bill import Bill, Kind, Prices
from jobs.bench.speed_table import estimate, render, spread
from jobs.bench.stage_speeds import StageSpeeds
from jobs.bench.utilisation import UtilisationSampler
from jobs.label.command import label_lake
from jobs.label.engine import device_for
from jobs.label.manifest import parts as manifest
from jobs.label.options import LabelConfig
from jobs.label.plan import make_plan
from jobs.lake.source import IN_PARQUET, UNKNOWN_LENGTH
from jobs.runtime.cluster import alive_nodes
from jobs.runtime.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES, JobError
from jobs.runtime.options import parse_count_range
from jobs.runtime.ray_session import ray_session
from jobs.table import parquet as tables
from jobs.table import record as run_record
from jobs.table.output import Output
from jobs.table.record import RunCounts, RunRecord

if TYPE_CHECKING:
    from jobs.bench.options import BenchConfig
    from jobs.label.plan import Plan

log = logging.getLogger(__name__)

#: units that every actor labels in a round; the first one is its warm-up
_UNITS_PER_ACTOR = 12


@dataclass
class Rounds:
    """The rounds' speeds in images/s, by what was measured, and how busy the machine was, in percent by device."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    busy: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **rates: float) -> None:
        for name, rate in rates.items():
            self.rates.setdefault(name, []).append(rate)

    def add_busy(self, percents: dict[str, float]) -> None:
        for name, percent in percents.items():
            self.busy.setdefault(name, []).append(percent)


def bench(config: BenchConfig) -> str:
    """Measure and write the JSON; returns the table. Raises `UsageError` and `JobError`."""
    rounds = Rounds()
    with tempfile.TemporaryDirectory(prefix="yolact-bench-") as folder, ray_session(config.address):
        label = label_config(config, folder)
        actors = None if config.num_actors is None else parse_count_range("--num-actors", config.num_actors)
        nodes = alive_nodes()
        plan = make_plan(nodes, device=device_for(label), actors=actors)
        for number in range(config.rounds):
            record = _round(config, plan, f"{folder}/round-{number}", rounds)
        kinds = kinds_of_images(Output.at(f"{folder}/round-{number}"))
    devices = plan.max_actors if plan.actor_gpus else len(nodes)
    figures = summary(config, record, plan, devices, rounds)
    bill = Bill.of(kinds, Prices(config.price_per_1000_reads, config.price_per_1000_writes))
    figures["bill"] = bill.to_json()
    if config.output is not None:
        storage.put_atomic(config.output, (json.dumps(figures, indent=2) + "\n").encode())
    return render(figures, bill)


def label_config(config: BenchConfig, output: str, images_per_unit: int | None = None) -> LabelConfig:
    """The options of the label run that is measured."""
    return LabelConfig(
        config.inputs,
        output=output,
        config=config.config,
        weights=config.weights,
        precision=config.precision,
        engine=config.engine,
        device=config.device,
        batch_size=config.batch_size,
        num_actors=config.num_actors,
        score_threshold=config.score_threshold,
        limit=config.sample,
        max_error_rate=1.0,
        images_per_unit=images_per_unit,
        address=config.address,
    )


def _round(config: BenchConfig, plan: Plan, folder: str, rounds: Rounds) -> RunRecord:
    """Label the sample, then measure the stages alone; returns the run's run.json."""
    batch = config.batch_size or (64 if plan.actor_gpus else 1)
    images_per_unit = max(batch, min(64, config.sample // (_UNITS_PER_ACTOR * plan.max_actors)))
    label = label_config(config, folder, images_per_unit)
    with UtilisationSampler() as sampler:
        end = label_lake(label)
    if end.exit_code not in (EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES):
        raise JobError(f"the sample could not be labelled: {end.complaint} (exit code {end.exit_code})")
    record = run_record.read(Output.at(folder))
    assert record is not None, "a finished run has a record"
    assert record.counts is not None, "and it has counts"
    steady = record.runs[-1].steady
    if not steady.images:
        raise JobError(f"{record.counts.images} images are too few to measure {plan.max_actors} actors: --sample")
    rounds.add(end_to_end=steady.images / steady.seconds)
    rounds.add_busy(sampler.between(steady.began, steady.began + steady.seconds))
    speeds = StageSpeeds(label, record, plan)
    rounds.add(**speeds.model(), decode_only=speeds.decode())
    if config.plain_loop:
        rounds.add(plain_loop=speeds.plain_loop())
    log.info("bench: %s", ", ".join(f"{name} {rates[-1]:.2f} images/s" for name, rates in rounds.rates.items()))
    return record


def kinds_of_images(output: Output) -> list[Kind]:
    """For each image of a run, the kind of object that holds it."""
    parts = [part.number for generation in manifest.read_generations(output) for part in generation.parts]
    return [
        _kind_of(row["offset"], row["length"], row["size"])
        for number in parts
        for row in tables.read(output.manifest_part(number)).to_pylist()
    ]


def _kind_of(offset: int | None, length: int | None, size: int | None) -> Kind:
    if length == IN_PARQUET:
        return "parquet"
    return "image" if length in (None, UNKNOWN_LENGTH) or (offset == 0 and length == size) else "tar"


def summary(config: BenchConfig, record: RunRecord, plan: Plan, devices: int, rounds: Rounds) -> dict[str, Any]:
    """All figures, as JSON values."""
    rates = rounds.rates
    by_round = zip(rates["end_to_end"], rates["model_only"], rates["decode_only"], strict=True)
    efficiencies = [whole / min(model, decode) for whole, model, decode in by_round]
    ratios = {"efficiency": spread(efficiencies)}
    if "plain_loop" in rates:
        pairs = zip(rates["end_to_end"], rates["plain_loop"], strict=True)
        ratios["times_plain_loop"] = spread([whole / plain for whole, plain in pairs])
    counts = record.counts or RunCounts()
    figures: dict[str, Any] = {
        "model": record.model,
        "precision": record.precision,
        "engine": record.engine,
        "device": plan.device,
        "plan": plan.describe(),
        "devices_measured": devices,
        "images_measured": counts.images,
        "instances_per_image": counts.instances / max(1, counts.ok),
        "failed_images": counts.failed,
        "rounds": config.rounds,
        "versions": dict(record.versions),
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": ratios,
        "busy_percent": {name: spread(values) for name, values in rounds.busy.items()},
    }
    per_device = figures["images_per_second"]["end_to_end"]["median"] / devices
    figures["estimate"] = estimate(config.images, config.devices, config.price_per_hour, per_device)
    return figures
