"""From an address to its fsspec filesystem: one client per process, without caches or retries of its own."""

from __future__ import annotations

import os
import posixpath
import re
import time
from typing import Any, NamedTuple

import fsspec

from jobs.runtime.errors import UsageError
from jobs.storage.redaction import one_line

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_LOCAL = ("file", "local")
_S3 = ("s3", "s3a")
#: variables that a client reads when it is made: if one has changed, a new client is made
_CLIENT_VARIABLES = re.compile(r"^AWS_|^FSSPEC_")
#: a client that is younger than this is not renewed: a new one would read the same credentials
_RENEW_SECONDS = 10.0


class _Client(NamedTuple):
    filesystem: Any
    made: float


_clients: dict[tuple[object, ...], _Client] = {}


def split_uri(uri: str) -> tuple[str, str]:
    """(scheme, path): ("s3", "bucket/key"), ("file", "/absolute/path"); a plain path is a local one."""
    match = _SCHEME.match(uri)
    if match is None:
        return "file", _local_path(os.path.expanduser(uri))
    scheme, path = match.group(1).lower(), uri[match.end() :]
    if scheme in _LOCAL:
        return "file", _local_path(path)
    return ("s3" if scheme in _S3 else scheme), path


def _local_path(path: str) -> str:
    return printable_path(os.path.abspath(path))


def printable_path(path: str) -> str:
    r"""A path as valid Unicode: bytes that are no UTF-8 appear as \xNN. `disk_path` finds the file again."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def disk_path(path: str) -> str:
    r"""The path on the disk of a printable name. \xNN stands for a byte, unless a file has exactly that name."""
    if _ESCAPED_BYTE.search(path) is None or os.path.lexists(path):
        return path
    parts = _ESCAPED_BYTE.split(path)
    raw = b"".join(
        bytes.fromhex(part) if place % 2 else part.encode("utf-8", "surrogateescape")
        for place, part in enumerate(parts)
    )
    found = raw.decode("utf-8", "surrogateescape")
    return found if os.path.lexists(found) else path


def has_scheme(uri: str) -> bool:
    """Whether an address begins with a scheme ("s3://…", "file://…"); one without is a local path."""
    return _SCHEME.match(uri) is not None


def beside(uri: str, relative: str) -> str:
    """The address of `relative`, a path that starts at the folder of the object `uri`."""
    scheme, path = split_uri(uri)
    found = posixpath.normpath(f"{posixpath.dirname(path)}/{relative}")
    return found if scheme == "file" else f"{scheme}://{found}"


def is_local(uri: str) -> bool:
    """Whether `uri` names a file or folder of this machine's disks: a plain path, or one behind file://."""
    return split_uri(uri)[0] == "file"


def store_of(uri: str) -> tuple[str, str]:
    """(scheme, bucket or host) of an address: the part that answers or fails as a whole. Local: ("file", "")."""
    scheme, path = split_uri(uri)
    return scheme, "" if scheme == "file" else path.partition("/")[0]


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem for `uri`, and the path in it; one client per process, shared by its threads.

    Clients neither cache listings nor retry on their own (`jobs.storage.retry` does, and counts). A forked child, or
    changed AWS_* variables, get a client of their own. Raises UsageError for a scheme that has no filesystem here.
    """
    scheme, path = split_uri(uri)
    filesystem = _client(scheme).filesystem
    return filesystem, path if scheme in ("file", "s3") else filesystem._strip_protocol(uri)


def renew_filesystem(uri: str) -> None:
    """Make the next `open_filesystem` use a new client, which reads credentials again, unless this client is new."""
    scheme = split_uri(uri)[0]
    if time.monotonic() - _client(scheme).made > _RENEW_SECONDS:
        _clients.pop(_client_key(scheme), None)


def _client(scheme: str) -> _Client:
    key = _client_key(scheme)
    if key not in _clients:
        _clients.setdefault(key, _Client(_new_filesystem(scheme), time.monotonic()))
    return _clients[key]


def _client_key(scheme: str) -> tuple[object, ...]:
    environment = (item for item in os.environ.items() if _CLIENT_VARIABLES.match(item[0]))
    return (os.getpid(), scheme, *(sorted(environment) if scheme != "file" else ()))


def _new_filesystem(scheme: str) -> Any:
    options: dict[str, Any] = {} if scheme == "file" else {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 20,  # a server may be silent for ten seconds
            "max_pool_connections": 64,
        }
    try:
        filesystem = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot open {scheme}:// addresses: {one_line(str(error))}") from None
    except Exception:  # "dir", "zip", "github" and others: each fails in its own way
        raise UsageError(f"cannot open {scheme}:// addresses: this scheme needs more than an address") from None
    if scheme == "s3":
        filesystem.retries = 1
    return filesystem
