"""From an address to the filesystem behind it: one client per process, without caches or retries of its own."""

from __future__ import annotations

import os
import re
from typing import Any

import fsspec

from jobs.errors import UsageError
from jobs.storage.errors import one_line

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")
_S3 = ("s3", "s3a")
#: what a client's connection is made from; another value needs another client
_CLIENT_VARIABLES = re.compile(r"^AWS_|^FSSPEC_")
_filesystems: dict[tuple[object, ...], Any] = {}


def split_uri(uri: str) -> tuple[str, str]:
    """(scheme, path): ("s3", "bucket/key"), ("file", "/absolute/path"); a plain path is a local one."""
    match = _SCHEME.match(uri)
    if match is None:
        return "file", os.path.abspath(uri)
    scheme, path = match.group(1).lower(), uri[match.end() :]
    if scheme in _LOCAL:
        return "file", os.path.abspath(path)
    return ("s3" if scheme in _S3 else scheme), path


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem for `uri`, and the path in it; one client per process, shared by its threads.

    Clients neither cache listings nor retry on their own (`jobs.retry` does, and counts). A forked child, or changed
    AWS_* variables, get a client of their own. Raises UsageError for a scheme that has no filesystem here.
    """
    scheme, path = split_uri(uri)
    key = _client_key(scheme)
    if key not in _filesystems:
        _filesystems[key] = _new_filesystem(scheme)
    filesystem = _filesystems[key]
    return filesystem, path if scheme in ("file", "s3") else filesystem._strip_protocol(uri)


def forget_filesystem(filesystem: object) -> None:
    """Makes the next `open_filesystem` connect afresh, which picks up renewed credentials."""
    for key in [key for key, known in list(_filesystems.items()) if known is filesystem]:
        _filesystems.pop(key, None)


def _client_key(scheme: str) -> tuple[object, ...]:
    environment = (item for item in os.environ.items() if _CLIENT_VARIABLES.match(item[0]))
    return (os.getpid(), scheme, *(sorted(environment) if scheme != "file" else ()))


def _new_filesystem(scheme: str) -> Any:
    options: dict[str, Any] = {} if scheme == "file" else {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 20,  # a stall of ten seconds is nothing yet
            "max_pool_connections": 64,
        }
    try:
        filesystem = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot open {scheme}:// addresses: {one_line(str(error))}") from None
    if scheme == "s3":
        filesystem.retries = 1
    return filesystem
