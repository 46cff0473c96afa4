"""Everything that reads or writes object stores and disks; see `operations` for the functions and their errors."""

from __future__ import annotations

from jobs.storage.errors import ObjectChangedError, ObjectMissingError, StorageError, TransientStorageError, classify
from jobs.storage.filesystems import beside, has_scheme, is_local, open_filesystem, split_uri, store_of
from jobs.storage.operations import (
    check_reachable,
    delete_objects,
    exists,
    folder_exists,
    iter_objects,
    list_objects,
    object_info,
    put_atomic,
    put_if_absent,
    read_bytes,
    read_range,
    read_versioned,
    replace_if_unchanged,
    upload_file,
)
from jobs.storage.range_file import RangeFile, open_file
from jobs.storage.redaction import holds_credentials, one_line, without_credentials
from jobs.storage.retry import Retry
from jobs.storage.store import ObjectInfo

__all__ = [
    "ObjectChangedError",
    "ObjectInfo",
    "ObjectMissingError",
    "RangeFile",
    "Retry",
    "StorageError",
    "TransientStorageError",
    "beside",
    "check_reachable",
    "classify",
    "delete_objects",
    "exists",
    "folder_exists",
    "has_scheme",
    "holds_credentials",
    "is_local",
    "iter_objects",
    "list_objects",
    "object_info",
    "one_line",
    "open_file",
    "open_filesystem",
    "put_atomic",
    "put_if_absent",
    "read_bytes",
    "read_range",
    "read_versioned",
    "replace_if_unchanged",
    "split_uri",
    "store_of",
    "upload_file",
    "without_credentials",
]
