"""The names of all objects of one labelling run under its OUTPUT.

`labels/`, `manifest/`, `run.json` and `_SUCCESS` are for readers. `_state/` is for the job only: the lease, the index
of sources, the hashes of the ids of each part, and `staging/`, which holds one object per committed unit until its part
is published. A name depends only on part and unit, so that a step that runs twice writes the same object twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jobs import storage

#: a unit's number is `part * UNITS_PER_PART + index`, so that parts can be cut independently of each other
UNITS_PER_PART = 1 << 20

_PART = re.compile(r"part-(\d{6,})\.parquet$")
_PART_IDS = re.compile(r"part-(\d{6,})\.u64$")
_STAGED = re.compile(r"part-(\d{6,})/unit-(\d{6,})\.parquet$")


@dataclass(frozen=True)
class Output:
    """The object names of one run. `uri` has no slash at its end, and is absolute: workers run in other folders."""

    uri: str

    @classmethod
    def at(cls, uri: str) -> Output:
        """The names below the URI or path that the user gave as OUTPUT."""
        scheme, path = storage.split_uri(uri)
        return cls(path if scheme == "file" else uri.rstrip("/"))

    @classmethod
    def of_labels(cls, folder: str) -> Output | None:
        """The OUTPUT whose `labels/` the folder is, by its name; None for a folder of another name."""
        parent, _, name = folder.rstrip("/").rpartition("/")
        return cls(parent) if name == "labels" else None

    @property
    def is_local(self) -> bool:
        return storage.split_uri(self.uri)[0] == "file"

    @property
    def run_record(self) -> str:
        return f"{self.uri}/run.json"

    @property
    def success(self) -> str:
        return f"{self.uri}/_SUCCESS"

    @property
    def lease(self) -> str:
        return f"{self.uri}/_state/lease.json"

    @property
    def labels(self) -> str:
        return f"{self.uri}/labels"

    @property
    def manifest(self) -> str:
        return f"{self.uri}/manifest"

    @property
    def staging(self) -> str:
        return f"{self.uri}/_state/staging"

    @property
    def index(self) -> str:
        return f"{self.uri}/_state/index"

    @property
    def quantised_model(self) -> str:
        return f"{self.uri}/_state/int8.zip"

    @property
    def generations(self) -> str:
        return f"{self.uri}/_state/sources"

    def labels_part(self, part: int) -> str:
        return f"{self.labels}/part-{part:06d}.parquet"

    def manifest_part(self, part: int) -> str:
        return f"{self.manifest}/part-{part:06d}.parquet"

    def manifest_beside(self, file_name: str) -> str:
        """The manifest part of a label file, given the label file's name: both have the same name."""
        return f"{self.manifest}/{file_name}"

    @property
    def ids(self) -> str:
        return f"{self.uri}/_state/ids"

    def shard_index(self, name: str) -> str:
        """The index of one shard, until its generation is complete."""
        return f"{self.index}/{name}.parquet"

    def part_ids(self, part: int) -> str:
        """The hashes of the ids of one part of the manifest."""
        return f"{self.ids}/part-{part:06d}.u64"

    def generation(self, number: int) -> str:
        return f"{self.generations}/generation-{number:06d}.parquet"

    def staged_part(self, part: int) -> str:
        return f"{self.staging}/part-{part:06d}"

    def staged_unit(self, unit: int) -> str:
        part, index = divmod(unit, UNITS_PER_PART)
        return f"{self.staged_part(part)}/unit-{index:06d}.parquet"

    def published_parts(self) -> set[int]:
        """Numbers of the parts that stand in `labels/`."""
        return set(_numbers(_PART, self.labels))

    def indexed_parts(self) -> set[int]:
        """Numbers of the parts that stand in `manifest/`."""
        return set(_numbers(_PART, self.manifest))

    def hashed_parts(self) -> set[int]:
        """Numbers of the parts whose ids have a hash object."""
        return set(_numbers(_PART_IDS, self.ids))

    def staged_units(self) -> set[int]:
        """Units that have a staged object: they are committed, and their part's staged objects are not yet removed."""
        found = (_STAGED.search(entry.uri) for entry in storage.list_objects(self.staging))
        return {int(m[1]) * UNITS_PER_PART + int(m[2]) for m in found if m}


def _numbers(pattern: re.Pattern[str], folder: str) -> Iterable[int]:
    found = (pattern.search(entry.uri) for entry in storage.list_objects(folder))
    return (int(match[1]) for match in found if match)
