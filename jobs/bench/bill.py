"""What an object store charges for a run: requests of a million images by kind of lake, and their price.

The requests were counted in front of a real S3 server, by `python -m benchmarks.bill`. Nothing here asks a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: the kind of object that holds an image, as `jobs.lake.source.Kind`
Kind = Literal["image", "tar", "parquet"]

#: list prices of S3 Standard in us-east-1, in USD per 1,000 requests. Deletions are free
READS_PRICE = 0.0004
WRITES_PRICE = 0.005


@dataclass(frozen=True)
class Requests:
    """Requests of a million images: reads are GET and HEAD; writes are PUT, COPY, POST and LIST."""

    reads: float
    writes: float

    def times(self, share: float) -> Requests:
        """The requests of a share of the images."""
        return Requests(self.reads * share, self.writes * share)


@dataclass(frozen=True)
class Prices:
    """Money for 1,000 requests, in any currency."""

    reads: float = READS_PRICE
    writes: float = WRITES_PRICE


#: in units of 64 images and parts of 65,536. Counted on lakes of 256 and 512 images of 96 kB, too few to show the pages
#: of a listing: a LIST for each 1,000 loose images comes on top. The Parquet files held few different images
PER_MILLION: Mapping[Kind, Requests] = {
    "image": Requests(1_015_810, 15_690),
    "tar": Requests(47_059, 15_692),
    "parquet": Requests(39_118, 15_692),
}


@dataclass(frozen=True)
class Bill:
    """The requests of a million images, and what they cost."""

    requests: Requests
    prices: Prices

    @classmethod
    def of(cls, kinds: Iterable[Kind], prices: Prices) -> Bill:
        """The bill of a lake whose images lie in objects of the kinds that a sample's images, `kinds`, lie in."""
        counts = Counter(kinds)
        shares = [PER_MILLION[kind].times(count / counts.total()) for kind, count in counts.items()]
        return cls(Requests(sum(share.reads for share in shares), sum(share.writes for share in shares)), prices)

    @property
    def money(self) -> float:
        """What the requests of a million images cost."""
        return (self.requests.reads * self.prices.reads + self.requests.writes * self.prices.writes) / 1000

    def lines(self, *, devices: float | None) -> list[str]:
        """The bill in words; with the sum, where it is known what `devices` cost for a million images."""
        reads, writes = f"{self.requests.reads:,.0f} reads", f"{self.requests.writes:,.0f} writes"
        lines = [f"requests of a million images in an object store: {reads}, {writes}: {self.money:,.2f}"]
        if devices is not None:
            lines.append(f"devices and requests of a million images: {devices + self.money:,.2f}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The bill as JSON values."""
        return {**asdict(self), "money_per_million_images": self.money}
