"""Which model a job runs: found and fingerprinted without torch, loaded once on the driver, shared with the actors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import UsageError
from yolact.config import YolactConfig, get_config
from yolact.files import read_bytes
from yolact.weights_file import is_own_checkpoint, read_own_header, resolve_weights

if TYPE_CHECKING:
    from ray import ObjectRef

    from yolact.model import Yolact
    from yolact.predictor import Predictor

#: what a user gets who names neither config nor weights
DEFAULT_CONFIG = "nuclei"


@dataclass(frozen=True)
class ModelSource:
    """A config and the file its weights come from; `sha256` is of that file."""

    config: YolactConfig
    uri: str
    sha256: str

    def load(self) -> Yolact:
        """The model on the CPU, in evaluation mode. Raises `UsageError` where file and config do not fit."""
        from yolact.checkpoint import load_model

        try:
            model, loaded = load_model(self.uri, self.config)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if loaded.sha256 != self.sha256:
            raise UsageError(f"{self.uri} changed while it was being read; run again")
        return model


def resolve_model(config: str | None, weights: str | None) -> ModelSource:
    """From `--config` and `--weights`, of which either may be missing. Raises `UsageError` in one sentence."""
    try:
        if weights is None:
            chosen = get_config(config or DEFAULT_CONFIG)
            weights = str(resolve_weights(chosen))
            data = read_bytes(weights)
        else:
            data = read_bytes(weights)
            if config is not None:
                chosen = get_config(config)
            elif is_own_checkpoint(data):
                chosen, _ = read_own_header(data, weights)
            else:
                raise UsageError(f"{weights} does not carry its config: name it, e.g. --config yolact_base")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return ModelSource(chosen, weights, hashlib.sha256(data).hexdigest())


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

        from yolact.predictor import Predictor

        torch.set_num_threads(threads)
        # of the whole process, whose threads share it: mask rescoring is a network too
        torch.backends.cudnn.allow_tf32 = False
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
            # the network runs in OpenVINO's threads while masks are made: more of torch's would take cores from it
            torch.set_num_threads(1)
        return predictor
