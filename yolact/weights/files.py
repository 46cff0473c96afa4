"""Finds the weights file of a config and reads the header of a checkpoint. Does not import torch."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import fsspec

from yolact.config import YolactConfig

FORMAT = "yolact-checkpoint/1"


def is_own_checkpoint(data: bytes) -> bool:
    """Whether the file is safetensors: eight bytes of length, then a JSON header."""
    return data[8:9] == b"{"


def read_own_header(data: bytes, source: str) -> tuple[YolactConfig, dict[str, Any]]:
    """The config and the provenance that an own checkpoint carries. Raises `ValueError` for anything else."""
    try:
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except ValueError as error:
        raise ValueError(f"{source} is truncated or not a safetensors file: fetch it again") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{source} is not a checkpoint of this project: its metadata do not say {FORMAT!r}")
    try:
        return YolactConfig.from_dict(json.loads(metadata["config"])), json.loads(metadata["provenance"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{source} carries a config that this version cannot read: {error}") from error


def weights_folder() -> Path:
    """Where downloaded weights are kept: `$YOLACT_WEIGHTS`, else `~/.cache/yolact`."""
    return Path(os.environ.get("YOLACT_WEIGHTS") or "~/.cache/yolact").expanduser()


def resolve_weights(config: YolactConfig) -> Path:
    """A local file with the config's own weights: shipped with the package, else published.

    A published file is looked for in `weights_folder()` and downloaded to it once.

    Raises:
        ValueError: when there is no such file or it cannot be fetched; says which file to get and where to put it.
    """
    shipped = Path(__file__).parent.parent / "models" / f"{config.name}.safetensors"
    if shipped.exists():
        return shipped
    if config.official is None:
        raise ValueError(f"config {config.name!r} has no published weights: give a checkpoint")
    local = weights_folder() / config.official.filename
    if not local.exists():
        try:
            write_bytes(local, read_bytes(config.official.uri))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"cannot fetch the weights of {config.name!r}: get {config.official.filename} from "
                f"https://huggingface.co/{config.official.repository} and put it in {weights_folder()}"
            ) from error
    return local


#: a scheme; "C:" of a path is none
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def local_path(path_or_uri: str | os.PathLike[str]) -> Path | None:
    """The path of a file of this machine, which may stand behind file://; None for an address of another scheme."""
    name = os.fspath(path_or_uri)
    match = _SCHEME.match(name)
    if match is None:
        return Path(name).expanduser()
    return Path(name[match.end() :]) if match[1].lower() in ("file", "local") else None


def read_bytes(path_or_uri: str | os.PathLike[str]) -> bytes:
    """The file's content. Raises `ValueError`, in one sentence, when it is missing or cannot be read."""
    name = os.fspath(path_or_uri)
    try:
        if (path := local_path(name)) is not None:
            return path.read_bytes()
        with fsspec.open(name, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ValueError(f"no file at {name}") from error
    except Exception as error:  # every fsspec back end has its own errors
        raise ValueError(f"cannot read {name}: {_one_line(error)}") from error


def write_bytes(path_or_uri: str | os.PathLike[str], data: bytes) -> None:
    """Write the file in one piece: a reader sees the old content or the new, never a part. Makes local folders."""
    name = os.fspath(path_or_uri)
    path = local_path(name)
    if path is None:
        filesystem, key = fsspec.core.url_to_fs(name)
        filesystem.pipe_file(key, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would shut out other users of a shared folder
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
