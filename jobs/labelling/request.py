"""What was asked of `yolact label`: are the options possible, which run is it, and is it done already.

Answered before Ray or torch are imported.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs import storage
from jobs.count_range import parse_count_range
from jobs.errors import UsageError
from jobs.labelling import run_record
from jobs.labelling.listing import compare, listing_digest
from jobs.labelling.manifest import read_generations
from jobs.labelling.output import Output
from jobs.lake import Source
from jobs.model_source import ModelSource
from jobs.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from jobs.label import LabelConfig

log = logging.getLogger(__name__)


def check_options(config: LabelConfig) -> None:
    """Raise `UsageError` for values no run can have."""
    for uri in (*config.inputs, config.output):
        if storage.holds_credentials(uri):
            raise UsageError(
                f"{storage.without_credentials(uri)}: ids are made from addresses, so none may hold a password or a "
                "signature; give credentials by the environment or the store's own files"
            )
    if config.num_actors is not None:
        parse_count_range("--num-actors", config.num_actors)
    if config.precision == "int8" and (config.engine not in ("auto", "openvino") or config.device == "cuda"):
        raise UsageError("--precision int8 runs by openvino on CPUs alone: leave --engine and --device to auto")
    for name in ("score_threshold", "max_error_rate"):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)}: must lie between 0 and 1")
    for name in (
        "max_detections",
        "batch_size",
        "limit",
        "max_pixels",
        "max_bytes",
        "images_per_unit",
        "images_per_part",
    ):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least 1")


def make_identity(config: LabelConfig, model: ModelSource) -> dict[str, Any]:
    """All that decides what a run's rows say; another identity into the same OUTPUT is refused."""
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
    # as it will be read back, so that tuples compare equal to JSON's lists
    return dict(json.loads(json.dumps(identity)))


def finished_run(output: Output, sources: Sequence[Source], relabel_changed: bool) -> dict[str, Any] | None:
    """The marker of a run that has labelled all of `sources`; None where there is something to do."""
    marker = run_record.read_success(output)
    # the digest spares a look at what is known of a large lake
    if marker is None or marker["listing"] == listing_digest(sources):
        return marker
    state = compare(sources, read_generations(output))
    if state.new or (state.changed and relabel_changed):
        return None
    if state.changed:
        report_changed(state.changed)
    return marker


def report_changed(changed: list[Source]) -> None:
    """Say which objects of the lake are not those that were labelled."""
    some = ", ".join(source.uri for source in changed[:3]) + (", …" if len(changed) > 3 else "")
    log.warning(
        "%d objects were replaced since they were indexed (%s); --relabel-changed labels them again", len(changed), some
    )
