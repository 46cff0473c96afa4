"""The identity of a run: everything that decides what its rows say. An OUTPUT takes the rows of one identity only.

Every option of `yolact label` is in one of the two tables below. A test compares them with `LabelConfig`, and
docs/label.md describes them to users.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.table.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from jobs.label.options import LabelConfig
    from jobs.runtime.model_source import ModelSource
    from jobs.table.policy import Policy

#: options that decide what a row says, with the key of the identity that holds each of them
IN_IDENTITY = {
    "config": "model",
    "weights": "weights_sha256",
    "policy": "policy",
    "score_threshold": "score_threshold",
    "max_detections": "max_detections",
    "nms": "nms",
    "tile": "tile",
    "tile_overlap": "tile_overlap",
    "tile_whole_image": "tile_whole_image",
    "tiled_max_detections": "tiled_max_detections",
    "precision": "precision",
    "engine": "engine",
    "max_pixels": "max_pixels",
    "max_bytes": "max_bytes",
    "limit": "limit",
    "image_column": "image_column",
    "id_column": "id_column",
}

#: options that do not decide what a row says, and why
NOT_IN_IDENTITY = {
    "inputs": "which images there are, not what is found in one; a lake may grow",
    "any_name": "which images there are, as inputs",
    "output": "where the rows go",
    "device": "float noise; the arithmetic that the first run settled stays, so that a run may go on on other hardware",
    "batch_size": "float noise: 1.2e-7 of a score between 1 and 8",
    "num_actors": "every actor computes the same",
    "max_error_rate": "the exit code alone",
    "relabel_changed": "a row is of the object as it was when it was read, with or without it",
    "images_per_unit": "how the rows are cut into commits",
    "images_per_part": "how the rows are cut into files",
    "log_format": "the log alone",
    "address": "where the work is done",
}


def make_identity(config: LabelConfig, model: ModelSource, policy: Policy | None = None) -> dict[str, Any]:
    """The identity of the run that `config` asks for, as JSON values.

    `policy` is the one that `config` names, for the classes of the model. It and column names are in the identity only
    if they are given, and options of tiles only with `--tile`: without them it equals the identity of earlier versions.
    """
    identity = {
        "schema_version": SCHEMA_VERSION,
        "model": model.config.to_dict(),
        "weights_sha256": model.sha256,
        "score_threshold": config.score_threshold,
        "max_detections": config.max_detections or model.config.nms.max_detections,
        "nms": config.nms or model.config.nms.kind,
        "precision": config.precision,
        "engine": config.engine,
        "max_pixels": config.max_pixels,
        "max_bytes": config.max_bytes,
        "limit": config.limit,
    }
    for name in ("image_column", "id_column"):
        if getattr(config, name) is not None:
            identity[name] = getattr(config, name)
    if config.tile is not None:
        for name in ("tile", "tile_overlap", "tile_whole_image", "tiled_max_detections"):
            identity[name] = getattr(config, name)
    if policy is not None:
        identity["policy"] = policy.to_json()
    # as it will be read back: JSON turns tuples into lists
    return dict(json.loads(json.dumps(identity)))
