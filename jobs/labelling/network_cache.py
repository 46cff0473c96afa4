"""OpenVINO's networks on a machine's own disk, so that a later run over the same weights need not make them again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from yolact.engine import cache_folder
from yolact.files import read_bytes, write_bytes
from yolact.openvino_engine import OpenVinoNetwork, convert

if TYPE_CHECKING:
    from yolact.model import Yolact

log = logging.getLogger(__name__)

#: raised when converting changes
_RECIPE = 1


def cached_network(name: str, make: Callable[[], OpenVinoNetwork]) -> OpenVinoNetwork:
    """The network of that name under `cache_folder()`; where there is none, or a broken one, it is made and put there.

    `name` must tell everything that `make` depends on. A folder that cannot be written costs time later, nothing now.
    """
    path = cache_folder() / f"{name}.zip"
    try:
        return OpenVinoNetwork.from_bytes(read_bytes(path))
    except ValueError:
        network = make()
    try:
        write_bytes(path, network.to_bytes())
    except OSError as error:
        log.warning("the network cannot be kept for later runs: %s", error)
    return network


def converted(model: Yolact, weights_sha256: str) -> OpenVinoNetwork:
    """`convert(model)`, kept by weights, config and versions."""
    versions = [importlib.metadata.version(package) for package in ("openvino", "torch")]
    made_from = json.dumps([_RECIPE, weights_sha256, model.config.to_dict(), *versions])
    digest = hashlib.sha256(made_from.encode()).hexdigest()
    return cached_network(f"openvino/{digest}", lambda: convert(model))
