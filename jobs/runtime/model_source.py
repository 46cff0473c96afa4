"""Finds the model that a job runs, and its hash, without torch. The driver loads the model once, for all actors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.runtime.errors import UsageError
from yolact.config import YolactConfig, get_config
from yolact.weights.files import is_own_checkpoint, read_bytes, read_own_header, resolve_weights

if TYPE_CHECKING:
    from yolact.network.model import Yolact

#: the config for a user who names neither config nor weights
DEFAULT_CONFIG = "nuclei"


@dataclass(frozen=True)
class ModelSource:
    """A config, and the file of its weights with the file's sha256."""

    config: YolactConfig
    uri: str
    sha256: str

    def load(self) -> Yolact:
        """The model on the CPU, in evaluation mode. Raises `UsageError` where file and config do not fit."""
        # imports torch, which a finished run does not need to find its model and the hash
        from yolact.weights.checkpoint import load_model

        try:
            model, loaded = load_model(self.uri, self.config)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if loaded.sha256 != self.sha256:
            raise UsageError(f"{self.uri} changed while it was being read; run again")
        return model


def resolve_model(config: str | None, weights: str | None) -> ModelSource:
    """The model that `--config` and `--weights` name. Either may be None. Raises `UsageError`."""
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
