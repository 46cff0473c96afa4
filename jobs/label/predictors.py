"""The predictors of the actors: their settings, the network that they run, and how an actor makes its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import torch

from jobs.label.networks import converted, quantise_on_lake, read_quantised
from jobs.label.pipeline.stages import IndexedLake
from jobs.label.plan import Plan
from jobs.table.record import RunRecord
from yolact.images.tile_config import TileConfig
from yolact.inference.engine_choice import capabilities_here
from yolact.inference.predictor import Predictor
from yolact.network.model import Yolact

if TYPE_CHECKING:
    from ray import ObjectRef


def network_for_actors(
    record: RunRecord,
    lake: IndexedLake,
    model: Yolact,
    weights: ObjectRef,
    plan: Plan,
    *,
    keep_quantisation: Callable[[dict[str, Any]], None],
) -> ObjectRef | None:
    """The model as an OpenVINO network, made once for all actors; None if another engine runs the model.

    An int8 network is quantised once for a run, on a sample of `lake`. `keep_quantisation` writes to run.json which
    network it is, before the first label. A later start finds this in `record` and uses the same network. `weights` is
    `model` in Ray's object store.
    """
    if record.engine != "openvino" or not lake.parts:
        return None
    if record.precision != "int8":
        # without OpenVINO on the driver, each actor converts the model itself
        return ray.put(converted(model, record.weights.sha256)) if capabilities_here("cpu").openvino else None
    if record.quantisation is None:
        network, quantisation = quantise_on_lake(lake, weights, record.weights.sha256, plan)
        keep_quantisation(quantisation)
    else:
        network = read_quantised(lake.output, record.quantisation)
    return ray.put(network)


@dataclass(frozen=True)
class PredictorSettings:
    """What an actor needs to make its `Predictor`; `model` is a reference into Ray's object store."""

    model: ObjectRef
    device: str
    precision: str
    score_threshold: float | tuple[float, ...]
    """one for all classes, or one for each"""
    max_detections: int
    nms: str
    batch_size: int | None
    engine: str
    tile: TileConfig | None
    network: ObjectRef | None
    """the model as an OpenVINO network, if that engine runs it"""

    def make_predictor(self, threads: int) -> Predictor:
        """Make the predictor; called in the actor's process. `threads` is the number of CPU threads of the network."""
        torch.set_num_threads(threads)
        options: dict[str, Any] = {
            "device": self.device,
            "precision": self.precision,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "nms": self.nms,
            "batch_size": self.batch_size,
            "engine": self.engine,
            "tile": self.tile,
            "network": None if self.network is None else ray.get(self.network),
        }
        predictor = Predictor(ray.get(self.model), **options)
        if predictor.choice.engine == "openvino":
            # torch makes masks while OpenVINO's threads run the network; more torch threads would take its cores
            torch.set_num_threads(1)
        return predictor
