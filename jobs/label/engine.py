"""Precision and engine of a run. The first start of the run chooses them, and every later start keeps them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.client import ray as client

from jobs.label.plan import Plan
from jobs.runtime.cluster import Node
from jobs.runtime.errors import UsageError
from yolact.inference.engine_choice import Capabilities, EngineChoice, capabilities_here, choose_engine

if TYPE_CHECKING:
    from jobs.label.options import LabelConfig
    from jobs.label.pipeline.stages import IndexedLake
    from jobs.label.predictors import PredictorSettings
    from jobs.table.record import RunRecord
    from yolact.network.model import Yolact

log = logging.getLogger(__name__)

#: seconds between two log lines while the driver waits for a node
_PROBE_LINE_SECONDS = 60.0


def device_for(config: LabelConfig) -> str:
    """The value of `--device`, or "cpu" if the precision or the engine runs only there."""
    return "cpu" if config.precision == "int8" or config.engine == "openvino" else config.device


def settle_engine(config: LabelConfig, record: RunRecord, plan: Plan, nodes: Sequence[Node]) -> EngineChoice:
    """The precision and engine of this run. If run.json names them, they stay.

    Otherwise `config` names them, and "auto" becomes what the nodes of the model can run. Raises `UsageError` if these
    nodes cannot run the choice.
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
    """What a node that can hold a model actor is able to run.

    If this machine is the whole cluster and can hold an actor, it is asked directly. Otherwise a Ray task asks such a
    node. In a cluster that grows, this waits without limit until the autoscaler has brought one.
    """
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
    lake: IndexedLake,
    model: Yolact,
    plan: Plan,
    *,
    keep_quantisation: Callable[[dict[str, Any]], None],
) -> PredictorSettings:
    """The settings of the actors' predictors. Puts `model` into Ray's object store. See `network_for_actors`."""
    # imports torch; by now the thread that loaded the model has imported it, while Ray started
    from jobs.label.predictors import PredictorSettings, network_for_actors

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
        tile=lake.read.tile,
        network=network_for_actors(record, lake, model, weights, plan, keep_quantisation=keep_quantisation),
    )
