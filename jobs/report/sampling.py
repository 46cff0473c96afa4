"""Draws a stratified random sample of a table's images. The same seed gives the same sample on any cluster.

The stratum of an image is the class of its best instance, or "nothing found", or its status if it failed. A stratum
gets a share of the sample by the square root of its size, and at least one image, so that rare classes are seen. Within
a stratum the sampler takes the images with the smallest hash of (seed, id): a simple random sample in one pass.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.table.read import flatten_instances
from jobs.table.schema import STATUS_OK

NOTHING_FOUND = "nothing found"


@dataclass(frozen=True, order=True)
class Candidate:
    """An image that may be shown: its rank (a hash), and the place of its row in the table."""

    rank: int
    piece: int
    row: int


@dataclass
class Stratum:
    size: int = 0
    lowest: list[Candidate] = field(default_factory=list)


@dataclass
class Sampler:
    """Keeps the `most` candidates with the lowest rank of every stratum."""

    most: int
    seed: int
    strata: dict[str, Stratum] = field(default_factory=dict)

    def add_batch(self, batch: pa.RecordBatch, piece: int, first_row: int) -> None:
        """Take the rows of a batch into account. `first_row` is the place of the batch's first row in its piece."""
        names = stratum_names(batch)
        for offset, (image_id, name) in enumerate(zip(batch["image_id"].to_pylist(), names, strict=True)):
            stratum = self.strata.setdefault(name, Stratum())
            stratum.size += 1
            stratum.lowest.append(Candidate(rank(self.seed, image_id), piece, first_row + offset))
        self._trim()

    def add(self, other: Sampler) -> None:
        for name, stratum in other.strata.items():
            mine = self.strata.setdefault(name, Stratum())
            mine.size += stratum.size
            mine.lowest += stratum.lowest
        self._trim()

    def chosen(self) -> dict[str, list[Candidate]]:
        """The sample by stratum: at most `most` images in all."""
        shares = allocate({name: stratum.size for name, stratum in self.strata.items()}, self.most)
        return {name: sorted(self.strata[name].lowest)[: shares[name]] for name in sorted(self.strata)}

    def _trim(self) -> None:
        for stratum in self.strata.values():
            if len(stratum.lowest) > self.most:
                stratum.lowest = heapq.nsmallest(self.most, stratum.lowest)


def rank(seed: int, image_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def stratum_names(batch: pa.RecordBatch) -> list[str]:
    """The stratum of each row. Instances are sorted by score, so the first is the best."""
    ends, instances = flatten_instances(batch)
    categories = instances.field("category").to_pylist()
    first = np.where(np.diff(ends) > 0, ends[:-1], -1).tolist()
    return [
        status if status != STATUS_OK else NOTHING_FOUND if best < 0 else categories[best]
        for status, best in zip(batch["status"].to_pylist(), first, strict=True)
    ]


def allocate(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many images each stratum gives to a sample of `total` images.

    Shares go by the square root of the sizes: at least 1, and never more than the stratum has. Where there are more
    strata than images in the sample, the largest strata give one each.
    """
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    if total <= len(names):
        return {name: int(position < total) for position, name in enumerate(names)}
    shares = dict.fromkeys(names, 1)
    left = min(total, sum(sizes.values())) - len(names)
    while left > 0:
        open_names = [name for name in names if shares[name] < sizes[name]]
        weight = sum(sizes[name] ** 0.5 for name in open_names)
        before = left
        for name in open_names:
            extra = min(int(before * sizes[name] ** 0.5 / weight), sizes[name] - shares[name], left)
            shares[name] += extra
            left -= extra
        if left == before:  # all shares round to 0: one image each, the largest strata first
            for name in open_names[:left]:
                shares[name] += 1
                left -= 1
    return shares
