"""`run.json` and `_SUCCESS`: which run an OUTPUT belongs to, and what came of it."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from jobs import storage
from jobs.runtime import logs
from jobs.runtime.errors import UsageError
from jobs.table.output import Output
from jobs.table.schema import SCHEMA_VERSION

_PACKAGES = ("yolact-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True)
class WeightsFile:
    """The file that the weights came from; `sha256` is of its bytes. Both are empty where it is not known."""

    uri: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Thresholds:
    """The limits for instances: least score, overlap for NMS (IoU), both from 0 to 1, and the most in one image."""

    score: float = 0.0
    nms_iou: float = 0.0
    max_detections: int | None = None


@dataclass(frozen=True)
class Steady:
    """The work after the warm-up: images, seconds, and the `time.time()` at which it began."""

    images: int = 0
    seconds: float = 0.0
    began: float = 0.0


@dataclass(frozen=True)
class RunEntry:
    """One start of the run. `finished` is None while the start is at work, and stays None where it was killed.

    Times are ISO 8601, UTC. `seconds` is the time of labelling only. `stage_seconds` are by stage, `retries` by reason.
    `versions` are of the packages; earlier versions of this program did not write them.
    """

    started: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: str | None = None
    images: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    steady: Steady = field(default_factory=Steady)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunCounts:
    """The counts of a finished run; `by_status` counts images."""

    images: int = 0
    ok: int = 0
    failed: int = 0
    instances: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json. A key that an earlier version did not write has its default value.

    `status` is running, incomplete or finished. `identity` holds all that decides the content of the rows. The first
    start chooses `precision` and `engine`; they are empty until then. `versions` are those of the last start; `runs`
    has those of every start. `passed_over` counts, by extension, the files of the inputs that the last start did not
    take for images. `counts` is None until the run is finished.
    """

    schema_version: int = SCHEMA_VERSION
    status: str = ""
    run_id: str = ""
    identity_sha256: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsFile = field(default_factory=WeightsFile)
    thresholds: Thresholds = field(default_factory=Thresholds)
    nms: str = ""
    precision: str = ""
    engine: str = ""
    engine_reason: str = ""
    quantisation: Mapping[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[RunEntry, ...] = ()
    counts: RunCounts | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, under the keys of run.json."""
        values = asdict(self)
        if self.counts is None:
            del values["counts"]
        return values

    def to_json(self) -> bytes:
        """The content of run.json."""
        return json.dumps(self.to_dict(), indent=2).encode()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        """A record from the keys of run.json. Unknown keys are ignored."""
        known = _known(cls, values)
        if "class_names" in known:
            known["class_names"] = tuple(known["class_names"])
        if "inputs" in known:
            known["inputs"] = tuple(known["inputs"])
        for name, kind in (("weights", WeightsFile), ("thresholds", Thresholds), ("counts", RunCounts)):
            if known.get(name) is not None:
                known[name] = kind(**_known(kind, known[name]))
        known["runs"] = tuple(_entry(entry) for entry in known.get("runs", ()))
        return cls(**known)


def _entry(values: Mapping[str, Any]) -> RunEntry:
    known = _known(RunEntry, values)
    known["steady"] = Steady(**_known(Steady, known.get("steady", {})))
    return RunEntry(**known)


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {entry.name for entry in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """sha256 of the identity, which holds all that decides the content of the rows."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_id(output: Output, identity: Mapping[str, Any]) -> str:
    """The name of this run in log lines and metrics: the same after a resume, another for another OUTPUT or model."""
    return logs.run_id(output.uri, identity_hash(identity))


def versions() -> dict[str, str]:
    """The versions of the packages that can change the result of a run."""
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def read(output: Output) -> RunRecord | None:
    """The run.json of an OUTPUT; None where there is none. Raises `UsageError` for a file of another program."""
    try:
        values = json.loads(storage.read_bytes(output.run_record))
    except storage.ObjectMissingError:
        return None
    except (ValueError, RecursionError):
        values = None
    try:
        return RunRecord.from_dict(values)
    except (AttributeError, TypeError):
        raise UsageError(f"{output.run_record} is not a run record of this job; choose another --output") from None


def check_identity(output: Output, record: RunRecord, identity: Mapping[str, Any]) -> None:
    """Raise `UsageError` showing both identities where they differ."""
    there = record.identity
    if there == identity:
        return
    keys = [key for key in sorted({*there, *identity}) if there.get(key) != identity.get(key)]
    raise UsageError(
        f"{output.uri} belongs to another run (there: {_show(there, keys)}; asked: {_show(identity, keys)}); "
        "choose another --output, or the same model and options"
    )


def _show(identity: Mapping[str, Any], keys: list[str]) -> str:
    short = identity_hash(identity)[:12]
    return ", ".join([f"identity {short}"] + [f"{key} {_abbreviate(identity.get(key))}" for key in keys])


def _abbreviate(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def read_success(output: Output) -> dict[str, Any] | None:
    """The content of `_SUCCESS`, which marks a finished run; None where it is missing or cannot be read."""
    try:
        marker: dict[str, Any] = json.loads(storage.read_bytes(output.success))
    except (storage.ObjectMissingError, ValueError, RecursionError):
        return None
    return marker


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
