"""Reads a small file that an option names, such as a job file or a policy."""

from __future__ import annotations

from jobs.runtime.errors import JobError, UsageError
from jobs.storage.errors import ObjectMissingError, StorageError, TransientStorageError
from jobs.storage.operations import read_bytes


def read_given_file(uri: str, what: str) -> bytes:
    """The bytes of a file. `what` says in messages which kind of file it is.

    Raises `UsageError` where the file is not there or may not be read, and `JobError` where the store does not answer.
    """
    try:
        return read_bytes(uri)
    except ObjectMissingError:
        raise UsageError(f"{what} {uri}: there is no such file") from None
    except TransientStorageError as error:
        raise JobError(f"{what} {uri} cannot be read: {error}") from None
    except StorageError as error:
        # a folder, or no right to read
        raise UsageError(f"{what} {uri} cannot be read: {error}") from None
