"""Reading and writing whole files by path or fsspec URI; fsspec is imported only for URIs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def is_uri(path_or_uri: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path_or_uri)


def read_bytes(path_or_uri: str | os.PathLike[str]) -> bytes:
    """The file's content. Raises `ValueError`, in one sentence, when it is missing or cannot be read."""
    name = os.fspath(path_or_uri)
    try:
        if not is_uri(name):
            return Path(name).expanduser().read_bytes()
        import fsspec

        with fsspec.open(name, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ValueError(f"no file at {name}") from error
    except Exception as error:  # every fsspec back end has its own errors
        raise ValueError(f"cannot read {name}: {_one_line(error)}") from error


def write_bytes(path_or_uri: str | os.PathLike[str], data: bytes) -> None:
    """Write the file in one piece: a reader sees the old content or the new, never a part. Makes local folders."""
    name = os.fspath(path_or_uri)
    if is_uri(name):
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(name)
        filesystem.pipe_file(path, data)
        return
    path = Path(name).expanduser()
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
