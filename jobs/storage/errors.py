"""Errors of object stores, sorted by what to do about them, with messages that hold no credentials."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jobs.runtime.errors import JobError
from jobs.storage.redaction import one_line

#: transient: try again; missing: no such object; precondition: the object exists already or has changed;
#: range: the object ends before the requested bytes; permanent: trying again cannot help
Kind = Literal["transient", "missing", "precondition", "range", "permanent"]


class StorageError(JobError):
    """A storage operation failed. `reason` is the short name under which failures of this kind are counted."""

    def __init__(self, message: str, reason: str = "storage error") -> None:
        super().__init__(one_line(message, 1000), reason)

    @property
    def reason(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


class TransientStorageError(StorageError):
    """The retries are used up, but it may work later: throttling, a time-out, a reset, a short body, a refusal."""


class ObjectMissingError(StorageError):
    """There is no such object (or no such bucket)."""


class ObjectChangedError(StorageError):
    """The object is not the one that was listed: another etag, or it is shorter than it was."""


class RetryableError(Exception):
    """A failure that the store itself finds, such as a short body. It is tried again, within `jobs.storage`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Failure:
    """What an exception means: what to do (`kind`), the name it counts under (`reason`), and one line for the user."""

    kind: Kind
    reason: str
    detail: str


#: error codes of S3 and Azure that decide before the HTTP status does
_CODES: dict[str, tuple[Kind, str]] = {
    "SlowDown": ("transient", "throttled"),
    "Throttling": ("transient", "throttled"),
    "ThrottlingException": ("transient", "throttled"),
    "RequestLimitExceeded": ("transient", "throttled"),
    "TooManyRequests": ("transient", "throttled"),
    "RequestTimeout": ("transient", "time-out"),
    "ExpiredToken": ("transient", "credentials"),
    "ExpiredTokenException": ("transient", "credentials"),
    "TokenRefreshRequired": ("transient", "credentials"),
    "RequestTimeTooSkewed": ("transient", "clock skew"),
    "OperationAborted": ("transient", "conflict"),
    "ConditionalRequestConflict": ("transient", "conflict"),
    "IncompleteBody": ("transient", "short body"),
    "BadDigest": ("transient", "corrupt body"),
    "XAmzContentSHA256Mismatch": ("transient", "corrupt body"),
    "NoSuchUpload": ("transient", "upload lost"),
    # an archived object (Glacier, Azure's archive tier): waiting does not change the answer
    "InvalidObjectState": ("permanent", "archived"),
    "BlobArchived": ("permanent", "archived"),
    "BlobBeingRehydrated": ("permanent", "archived"),
    "PreconditionFailed": ("precondition", "precondition"),
    "InvalidRange": ("range", "range"),
}
_STATUSES: dict[int, tuple[Kind, str]] = {
    401: ("transient", "forbidden"),
    403: ("transient", "forbidden"),
    404: ("missing", "missing"),
    408: ("transient", "time-out"),
    409: ("transient", "conflict"),
    410: ("missing", "missing"),
    412: ("precondition", "precondition"),
    416: ("range", "range"),
    425: ("transient", "throttled"),
    429: ("transient", "throttled"),
    501: ("permanent", "not implemented"),
    503: ("transient", "throttled"),
}
#: exception classes by name, so that client libraries need not be imported
_CLASSES: dict[str, tuple[Kind, str]] = {
    "IncompleteReadError": ("transient", "short body"),
    "IncompleteRead": ("transient", "short body"),
    "ResponseStreamingError": ("transient", "short body"),
    "ClientPayloadError": ("transient", "short body"),
    "FlexibleChecksumError": ("transient", "corrupt body"),
    "ResponseParserError": ("transient", "corrupt body"),
    "NoCredentialsError": ("transient", "credentials"),
    "CredentialRetrievalError": ("transient", "credentials"),
    "TokenRetrievalError": ("transient", "credentials"),
    "TimeoutError": ("transient", "time-out"),
    "Timeout": ("transient", "time-out"),
    "TimeoutException": ("transient", "time-out"),
    "ConnectionError": ("transient", "connection"),
    "HTTPClientError": ("transient", "connection"),
    "ClientConnectionError": ("transient", "connection"),
    "TransportError": ("transient", "connection"),
    "RemoteDisconnected": ("transient", "connection"),
}
_ERRNOS: dict[int, tuple[Kind, str]] = {
    errno.ENOENT: ("missing", "missing"),
    errno.ENOTDIR: ("missing", "missing"),
    errno.EAGAIN: ("transient", "busy"),
    errno.EBUSY: ("transient", "busy"),
    errno.EINTR: ("transient", "busy"),
    errno.EIO: ("transient", "input/output error"),
    errno.ESTALE: ("transient", "stale file handle"),
    errno.ETIMEDOUT: ("transient", "time-out"),
}


def classify(error: BaseException) -> Failure:
    """What an exception of an fsspec filesystem, of botocore or of the operating system means."""
    if isinstance(error, RetryableError):
        return Failure("transient", error.reason, one_line(str(error)))
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            kind, reason = _by_response(response)
            return Failure(kind, reason, _response_line(response))
    for link in _causes(error):
        known = _by_code(link) or _by_status(_http_status(link)) or _by_class(link) or _by_errno(link)
        if known is not None:
            return Failure(*known, detail=_error_line(link))
    return Failure("permanent", "storage error", _error_line(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, then the exceptions it was raised from; s3fs raises its errors from those of the client."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _by_response(response: dict[str, Any]) -> tuple[Kind, str]:
    known = _CODES.get(str(response.get("Error", {}).get("Code")))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return known or _by_status(status) or ("permanent", "storage error")


def _by_status(status: object) -> tuple[Kind, str] | None:
    if not isinstance(status, int) or status < 400 or status > 599:
        return None
    known = _STATUSES.get(status)
    if known is None:
        known = ("transient", "server error") if status >= 500 else ("permanent", "refused")
    return known


def _http_status(error: BaseException) -> object:
    """The HTTP status in an error of gcsfs, aiohttp, requests, httpx or huggingface_hub."""
    codes = [getattr(getattr(error, "response", None), "status_code", None), getattr(error, "status", None)]
    if codes[1] is None:  # aiohttp has a "code" as well, and warns of its use
        codes.append(getattr(error, "code", None))
    for status in codes:
        if isinstance(status, str) and status.isdigit():
            status = int(status)
        if isinstance(status, int):
            return status
    return None


def _by_code(error: BaseException) -> tuple[Kind, str] | None:
    """By the code in an error of Azure's client, an enumeration or a string."""
    code = getattr(error, "error_code", None)
    return _CODES.get(str(getattr(code, "value", code)))


def _by_class(error: BaseException) -> tuple[Kind, str] | None:
    names = [cls.__name__ for cls in type(error).__mro__]
    return next((_CLASSES[name] for name in names if name in _CLASSES), None)


def _by_errno(error: BaseException) -> tuple[Kind, str] | None:
    if isinstance(error, FileNotFoundError):  # remote filesystems raise it without a number
        return ("missing", "missing")
    if isinstance(error, PermissionError) and error.errno is None:  # a 403; the local disk's has a number
        return ("transient", "forbidden")
    return _ERRNOS.get(error.errno) if isinstance(error, OSError) and error.errno is not None else None


def _response_line(response: dict[str, Any]) -> str:
    error = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(error.get("Code") or "error")
    label = code if code == str(status) else f"{status} {code}"
    return one_line(f"{label}: {error.get('Message') or 'no message'}")


def _error_line(error: BaseException) -> str:
    """The text of the operating system, else the class name and the message: a message alone may say too little."""
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror)
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
