"""Precision and engine of a run: the first start of the run decides, and every later start keeps the decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.label.plan import Plan
from jobs.runtime.cluster import Node
from jobs.runtime.errors import UsageError
from yolact.inference.engine_choice import Capabilities, EngineChoice, capabilities_here, choose_engine

if TYPE_CHECKING:
    from ray import ObjectRef

    from jobs.label.manifest.parts import Part
    from jobs.label.options import LabelConfig
    from jobs.label.pipeline.stages import InputLimits
    from jobs.lake import ParquetColumns
    from jobs.table.output import Output
    from jobs.table.record import RunRecord
    from yolact.inference.predictor import Predictor
    from yolact.network.model import Yolact

log = logging.getLogger(__name__)

#: seconds between two lines that tell of the wait for a node
_PROBE_LINE_SECONDS = 60.0


def device_for(config: LabelConfig) -> str:
    """`--device`; the CPU where precision or engine need it."""
    return "cpu" if config.precision == "int8" or config.engine == "openvino" else config.device


def settle_engine(config: LabelConfig, record: RunRecord, plan: Plan, nodes: Sequence[Node]) -> EngineChoice:
    """What was asked for, filled in by what the model's nodes can do, or by what run.json says of an earlier start.

    Raises `UsageError` for what these nodes cannot run.
    """
    if record.precision:
        # older run.json files have no "engine": all runs were eager then
        precision, engine = record.precision, record.engine or "eager"
    else:
        precision, engine = config.precision, config.engine
    try:
        choice = choose_engine(precision, engine, _capabilities(plan, nodes))
    except ValueError as error:
        raise UsageError(f"--precision {precision} --engine {engine}: {error}") from error
    if record.engine:
        return EngineChoice(choice.precision, choice.engine, record.engine_reason)
    return choice


def _capabilities(plan: Plan, nodes: Sequence[Node]) -> Capabilities:
    """Of this machine where it is the whole cluster and holds a model actor, else of a node that can hold one.

    In a cluster that grows this waits for the autoscaler's first such node, as long as it takes.
    """
    import ray
    from ray.util.client import ray as client

    is_here = len(nodes) == 1 and nodes[0].cpus >= plan.actor_cpus and nodes[0].gpus >= plan.actor_gpus
    if is_here and not client.is_connected():
        return capabilities_here(plan.device)
    probe = ray.remote(capabilities_here).options(num_cpus=plan.actor_cpus, num_gpus=plan.actor_gpus)
    pending = probe.remote(plan.device)
    while not ray.wait([pending], timeout=_PROBE_LINE_SECONDS)[0]:
        log.info("waiting for a node that holds a model actor")
    found: Capabilities = ray.get(pending)
    return found


def predictor_settings(
    config: LabelConfig,
    record: RunRecord,
    output: Output,
    parts: Sequence[Part],
    model: Yolact,
    *,
    keep_quantisation: Callable[[dict[str, Any]], None],
    limits: InputLimits,
    columns: ParquetColumns,
    plan: Plan,
) -> PredictorSettings:
    """What the actors of a run are made from; puts `model` into Ray's object store. See `network_for_actors`."""
    import ray

    weights = ray.put(model)
    return PredictorSettings(
        weights,
        device=plan.device,
        precision=record.precision,
        score_threshold=config.score_threshold,
        max_detections=record.thresholds.max_detections or model.config.nms.max_detections,
        nms=record.nms,
        batch_size=config.batch_size,
        engine=record.engine,
        network=network_for_actors(
            record,
            output,
            parts,
            model,
            weights,
            keep_quantisation=keep_quantisation,
            limits=limits,
            columns=columns,
            plan=plan,
        ),
    )


def network_for_actors(
    record: RunRecord,
    output: Output,
    parts: Sequence[Part],
    model: Yolact,
    weights: ObjectRef,
    *,
    keep_quantisation: Callable[[dict[str, Any]], None],
    limits: InputLimits,
    columns: ParquetColumns,
    plan: Plan,
) -> ObjectRef | None:
    """The model as OpenVINO's network, made once for all actors; None where another engine runs it.

    int8 is quantised on a sample of `parts`, once for a run: `record` says which network it is, and `keep_quantisation`
    writes that before the first label, so that a later start finds the network that made it. `weights` is `model` in
    Ray's object store.
    """
    import ray

    from jobs.label.networks import converted, quantise_on_lake, read_quantised, sample_rows

    if record.engine != "openvino" or not parts:
        return None
    if record.precision != "int8":
        # without OpenVINO on the driver, each actor converts the model itself
        return ray.put(converted(model, record.weights.sha256)) if capabilities_here("cpu").openvino else None
    if record.quantisation is None:
        network, quantisation = quantise_on_lake(
            output,
            sample_rows(output, parts),
            weights,
            record.weights.sha256,
            limits=limits,
            columns=columns,
            num_cpus=plan.actor_cpus,
            threads=plan.threads,
        )
        keep_quantisation(quantisation)
    else:
        network = read_quantised(output, record.quantisation)
    return ray.put(network)


@dataclass(frozen=True)
class PredictorSettings:
    """What an actor needs to make its `Predictor`; `model` is a reference into Ray's object store."""

    model: ObjectRef
    device: str
    precision: str
    score_threshold: float
    max_detections: int
    nms: str
    batch_size: int | None
    engine: str
    network: ObjectRef | None
    """the model as OpenVINO's network, where that runs it"""

    def make_predictor(self, threads: int) -> Predictor:
        """Called in the actor's process. `threads` are the network's CPU threads."""
        import ray
        import torch

        from yolact.inference.predictor import Predictor

        torch.set_num_threads(threads)
        options: dict[str, Any] = {
            "device": self.device,
            "precision": self.precision,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "nms": self.nms,
            "batch_size": self.batch_size,
            "engine": self.engine,
            "network": None if self.network is None else ray.get(self.network),
        }
        predictor = Predictor(ray.get(self.model), **options)
        if predictor.choice.engine == "openvino":
            # masks are made while the network runs in OpenVINO's threads; more torch threads would take its cores
            torch.set_num_threads(1)
        return predictor
