"""`run.json` and `_SUCCESS`: which run an OUTPUT belongs to, and how it went."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from jobs import storage
from jobs.runtime import logs
from jobs.runtime.errors import UsageError
from jobs.table.output import Output

_PACKAGES = ("yolact-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "numpy")


def identity_hash(identity: Mapping[str, Any]) -> str:
    """sha256 over all that decides what the rows of a run say."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_id(output: Output, identity: Mapping[str, Any]) -> str:
    """What log lines and metrics call this run: the same after a resume, another for another OUTPUT or model."""
    return logs.run_id(output.uri, identity_hash(identity))


def versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def read(output: Output) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(output.run_record))
    except storage.ObjectMissingError:
        return None
    except ValueError:
        raise UsageError(f"{output.run_record} is not a run record of this job; choose another --output") from None
    return record


def check_identity(output: Output, record: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise `UsageError` showing both identities where they differ."""
    there: Mapping[str, Any] = record.get("identity", {})
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
    try:
        marker: dict[str, Any] = json.loads(storage.read_bytes(output.success))
    except (storage.ObjectMissingError, ValueError):
        return None
    return marker


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
