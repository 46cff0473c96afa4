"""Finds image ids that a manifest holds more than once, in bounded memory.

Each part has a small object beside it: the 64-bit hashes of its ids, sorted. All hashes together are 8 bytes an image,
80 MB for ten million. They are compared one range of hash values at a time. Only ids whose hashes are equal are then
read and compared as text.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.label.fence import Fence
from jobs.table.output import Output

#: how many hashes are compared at a time; they take 64 MB
HASHES_AT_ONCE = 1 << 23


@dataclass(frozen=True, order=True)
class Place:
    """Where an id stands in the manifest: the row counts from 0 within the part."""

    part: int
    row: int
    image_id: str


def hash_ids(ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) uint64, one hash for each id, in the order of `ids`."""
    digests = [hashlib.blake2b(image_id.encode(), digest_size=8).digest() for image_id in ids.to_pylist()]
    return np.frombuffer(b"".join(digests), np.dtype("<u8"))


def hash_object(ids: pa.ChunkedArray) -> bytes:
    """The content of a part's hash object: the sorted hashes, 8 bytes each, little-endian."""
    return np.sort(hash_ids(ids)).tobytes()


def digest_of(hashes: bytes) -> str:
    """sha256 of a hash object. Parts with the same ids have the same digest, whatever the order of the ids."""
    return hashlib.sha256(hashes).hexdigest()


def read_ids(uri: str) -> pa.ChunkedArray:
    """The column `image_id` of a Parquet object, without the other columns."""
    with storage.open_file(uri) as file:
        return pq.ParquetFile(file).read(columns=["image_id"])["image_id"]


def read_hashes(output: Output, part: int, fence: Fence) -> bytes:
    """The hash object of a part. An earlier version of this program wrote none; then it is made from the manifest."""
    try:
        return storage.read_bytes(output.part_ids(part))
    except storage.ObjectMissingError:
        hashes = hash_object(read_ids(output.manifest_part(part)))
        fence.create(output.part_ids(part), hashes)
        return hashes


def find_doubled(output: Output, parts: Mapping[int, int], fence: Fence) -> list[list[Place]]:
    """The ids that stand more than once in `parts` (number → images): for each its places, in manifest order.

    The ids come in the order of their first places; no parts give an empty list. Memory: one range of hashes, the
    largest part, and the doubled ids.
    """
    with tempfile.TemporaryDirectory(prefix="yolact-ids-") as folder:
        ranges = -(-max(1, sum(parts.values())) // HASHES_AT_ONCE)
        with _range_files(Path(folder), ranges) as files:
            for number in parts:
                hashes = np.frombuffer(read_hashes(output, number, fence), np.dtype("<u8"))
                starts = [0, *np.searchsorted(hashes, _edges(ranges)), len(hashes)]
                for file, start, end in zip(files, starts, starts[1:], strict=False):
                    file.write(hashes[start:end].tobytes())
        repeated = [_repeated(path) for path in sorted(Path(folder).iterdir())]
    doubled = np.concatenate(repeated) if repeated else np.empty(0, np.uint64)
    return _places(output, parts, doubled, fence) if len(doubled) else []


def _edges(ranges: int) -> np.ndarray:
    """The lowest hash of every range except the first range."""
    return np.array([(number << 64) // ranges for number in range(1, ranges)], np.uint64)


@contextmanager
def _range_files(folder: Path, ranges: int) -> Iterator[Sequence[IO[bytes]]]:
    files = [open(folder / f"{number:06d}", "wb") for number in range(ranges)]  # noqa: SIM115
    try:
        yield files
    finally:
        for file in files:
            file.close()


def _repeated(path: Path) -> np.ndarray:
    """The values that a file of hashes holds more than once."""
    hashes = np.sort(np.fromfile(path, np.dtype("<u8")))
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _places(output: Output, parts: Mapping[int, int], doubled: np.ndarray, fence: Fence) -> list[list[Place]]:
    places: defaultdict[str, list[Place]] = defaultdict(list)
    for number in sorted(parts):
        hashes = np.frombuffer(read_hashes(output, number, fence), np.dtype("<u8"))
        if not np.isin(hashes, doubled).any():
            continue
        ids = read_ids(output.manifest_part(number))
        for row in np.flatnonzero(np.isin(hash_ids(ids), doubled)).tolist():
            image_id = ids[row].as_py()
            places[image_id].append(Place(number, row, image_id))
    # different ids may share a hash
    return sorted(found for found in places.values() if len(found) > 1)
