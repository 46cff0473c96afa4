"""Counts what a store charges for: requests by kind and bytes of a label run, for loose images, shards and Parquet.

    python -m benchmarks.bill --output bill/ --page docs/scale.md

Labels small lakes with a stand-in for the model, in a real S3 server on this machine with a proxy in front of it. Two
sizes of a lake give the requests of an image, two sizes of a part those of a part; the rest is fixed. Writes bill.json
and bill.md. Takes five minutes on two cores. The sums per million stand in `jobs/bench/bill.py` as well.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import s3fs
from PIL import Image

from benchmarks.harness import run_benchmark
from benchmarks.local_ray import start_ray
from benchmarks.object_store.proxy import Request, StoreProxy
from benchmarks.object_store.server import BUCKET, ObjectStore, client_environment
from benchmarks.scale.stand_in import StandInPredictor, save_stand_in_checkpoint
from benchmarks.tables import put_into_page
from jobs.bench.bill import PER_MILLION, Bill, Kind, Prices, Requests
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig

#: images of a shard and of a Parquet file, and of its row groups
IMAGES_PER_FILE = 1_024
IMAGES_PER_ROW_GROUP = 128
IMAGES_PER_UNIT = 64
IMAGES_PER_PART = 65_536
_CPUS, _GPUS = 4, 2
#: counts may differ from those in `jobs.bench.bill` by this share before it is said
_TOLERANCE = 0.05


@dataclass(frozen=True)
class BillConfig:
    """Options of the measurement."""

    output: Path
    """folder for the results"""
    images: tuple[int, int] = (1_024, 2_048)
    """sizes of the two lakes; multiples of 256, so that units and parts are full"""
    parts: int = 4
    """parts into which the larger lake is cut, to count what a part costs"""
    lakes: tuple[Kind, ...] = ("tar", "image", "parquet")
    """which kinds of lakes"""
    page: Path | None = None
    """page of docs/ that takes the table over"""


Counts = dict[str, float]
#: what is counted: kinds of requests, and megabytes (10⁶ bytes)
KINDS = ("GET", "HEAD", "LIST", "PUT", "POST", "COPY", "DELETE")
READ, WRITTEN = "MB read", "MB written"


@dataclass(frozen=True)
class LakeBill:
    """What one kind of lake costs. Each count is `fixed + image · images + part · parts`, without the lease."""

    kind: Kind
    fixed: Counts
    image: Counts
    part: Counts

    def per_million(self) -> Counts:
        """Counts of a million images in parts of 65,536."""
        parts = -(-1_000_000 // IMAGES_PER_PART)
        return {name: self.fixed[name] + 1_000_000 * self.image[name] + parts * self.part[name] for name in self.fixed}

    def requests(self) -> Requests:
        """Reads and writes of a million images, as a store charges them."""
        counts = self.per_million()
        return Requests(
            reads=counts["GET"] + counts["HEAD"],
            writes=sum(counts[kind] for kind in ("PUT", "POST", "COPY", "LIST")),
        )


def count(requests: Sequence[Request]) -> Counts:
    """The counts of a run, but for its lease: that is renewed by the clock."""
    chosen = [request for request in requests if not is_lease(request)]
    kinds: Counter[str] = Counter(request.kind for request in chosen)
    return {
        **{kind: float(kinds[kind]) for kind in KINDS},
        READ: sum(request.received for request in chosen if request.kind == "GET") / 1e6,
        WRITTEN: sum(request.sent for request in chosen if request.kind == "PUT") / 1e6,
    }


def is_lease(request: Request) -> bool:
    """Whether a request belongs to the lease of the driver."""
    return request.path.endswith("/lease.json")


def separate(small: Counts, large: Counts, cut: Counts, images: tuple[int, int], parts: int) -> list[Counts]:
    """What is fixed, what an image costs, and what a part costs.

    `small` and `large` are the counts of `images[0]` and `images[1]` images in one part, `cut` those of the larger lake
    in `parts` parts.
    """
    image = {name: (large[name] - small[name]) / (images[1] - images[0]) for name in small}
    part = {name: (cut[name] - large[name]) / (parts - 1) for name in small}
    return [{name: small[name] - part[name] - images[0] * image[name] for name in small}, image, part]


def draw_images() -> list[bytes]:
    """Four JPEGs of noise, about 150 kB each."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(4):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)).save(file, "JPEG", quality=86)
        images.append(file.getvalue())
    return images


def write_loose(store: s3fs.S3FileSystem, folder: str, images: Sequence[bytes], count: int) -> None:
    """One object for each image."""
    for number in range(count):
        store.pipe_file(f"{folder}/image-{number:08d}.jpg", images[number % len(images)])


def write_shards(store: s3fs.S3FileSystem, folder: str, images: Sequence[bytes], count: int) -> None:
    """Tar shards of `IMAGES_PER_FILE` images."""
    for first in range(0, count, IMAGES_PER_FILE):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for number in range(first, min(count, first + IMAGES_PER_FILE)):
                info = tarfile.TarInfo(f"image-{number:08d}.jpg")
                info.size = len(images[number % len(images)])
                tar.addfile(info, io.BytesIO(images[number % len(images)]))
        store.pipe_file(f"{folder}/shard-{first:08d}.tar", file.getvalue())


def write_parquet(store: s3fs.S3FileSystem, folder: str, images: Sequence[bytes], count: int) -> None:
    """Parquet files of `IMAGES_PER_FILE` images, in row groups of `IMAGES_PER_ROW_GROUP`."""
    for first in range(0, count, IMAGES_PER_FILE):
        numbers = range(first, min(count, first + IMAGES_PER_FILE))
        ids = [f"image-{number:08d}" for number in numbers]
        table = pa.table({"id": ids, "image": [images[number % len(images)] for number in numbers]})
        file = io.BytesIO()
        # without a dictionary, which would hold each of the few different images once
        pq.write_table(table, file, row_group_size=IMAGES_PER_ROW_GROUP, use_dictionary=False, compression="none")
        store.pipe_file(f"{folder}/lake-{first:08d}.parquet", file.getvalue())


LAKES: dict[Kind, Callable[[s3fs.S3FileSystem, str, Sequence[bytes], int], None]] = {
    "tar": write_shards,
    "image": write_loose,
    "parquet": write_parquet,
}


class LabelRuns:
    """Labels lakes and counts the requests of each run."""

    def __init__(self, proxy: StoreProxy, weights: Path) -> None:
        self._proxy, self._weights, self._runs = proxy, weights, 0
        self._lease: list[Request] = []
        self._lease_seconds = 0.0

    def run(self, lake: str, images_per_part: int) -> Counts:
        """The counts of one run. Raises `RuntimeError` where the run does not end well."""
        self._runs += 1
        before = len(self._proxy.requests)
        config = LabelConfig(
            (f"s3://{lake}",),
            f"s3://{BUCKET}/out/{self._runs}",
            weights=str(self._weights),
            precision="float32",
            engine="eager",
            images_per_unit=IMAGES_PER_UNIT,
            images_per_part=images_per_part,
            address="local",
        )
        end = label_lake(config, make_predictor=StandInPredictor)
        if end.exit_code != 0:
            raise RuntimeError(f"exit code {end.exit_code}: {end.complaint}")
        requests = self._proxy.requests[before:]
        lease = [request for request in requests if is_lease(request)]
        self._lease += lease
        self._lease_seconds += lease[-1].at - lease[0].at
        return count(requests)

    def lease_per_hour(self) -> Counts:
        """Requests of the lease in an hour, by kind, over all runs so far."""
        kinds = Counter(request.kind for request in self._lease)
        return {kind: 3600 * number / self._lease_seconds for kind, number in kinds.items()}


def measure(config: BillConfig, folder: Path) -> tuple[list[LakeBill], Counts]:
    """The bills of all kinds of lakes, and the requests of the lease in an hour."""
    weights = folder / "stand-in.safetensors"
    save_stand_in_checkpoint(weights)
    images = draw_images()
    bills = []
    with ObjectStore(folder / "store") as store, StoreProxy(store.endpoint) as proxy:
        os.environ |= client_environment(proxy.endpoint)
        start_ray(cpus=_CPUS, gpus=_GPUS)
        runs = LabelRuns(proxy, weights)
        for kind in config.lakes:
            lakes = [f"{BUCKET}/{kind}-{size}" for size in config.images]
            for lake, size in zip(lakes, config.images, strict=True):
                LAKES[kind](store.filesystem(), lake, images, size)
            small, large = (runs.run(lake, IMAGES_PER_PART) for lake in lakes)
            cut = runs.run(lakes[1], -(-config.images[1] // config.parts))
            bills.append(LakeBill(kind, *separate(small, large, cut, config.images, config.parts)))
            print(f"{kind}: {bills[-1].requests()}", flush=True)
        ray.shutdown()
    return bills, runs.lease_per_hour()


#: order of the table's columns
_TITLES: dict[Kind, str] = {"tar": "tar shards", "image": "loose images", "parquet": "Parquet"}


def markdown_table(bills: Sequence[LakeBill], lease: Counts) -> str:
    """Requests and bytes of a million images, one column for each kind of lake."""
    million = {bill.kind: bill.per_million() for bill in bills}
    rows = [
        [name, *(f"{million[bill.kind][name]:,.0f}" for bill in bills)]
        for name in KINDS
        if any(m[name] for m in million.values())
    ]
    rows += [
        [name.replace("MB", "GB"), *(f"{million[bill.kind][name] / 1000:,.1f}" for bill in bills)]
        for name in (READ, WRITTEN)
    ]
    rows.append(["requests, USD", *(f"{Bill(bill.requests(), Prices()).money:.2f}" for bill in bills)])
    head = ["a million images", *(_TITLES[bill.kind] for bill in bills)]
    lines = [head, ["---"] * len(head), *rows]
    hourly = " and ".join(f"{number:.0f} {kind}" for kind, number in lease.items())
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nThe driver's lease adds {hourly} an hour, whatever the lake.\n"


def differences(bills: Sequence[LakeBill]) -> list[str]:
    """Where `jobs.bench.bill` has other sums than these bills, one line for each."""
    lines = []
    for bill in bills:
        now, stored = bill.requests(), PER_MILLION[bill.kind]
        pairs = ((now.reads, stored.reads), (now.writes, stored.writes))
        if any(abs(a - b) > _TOLERANCE * max(a, b) for a, b in pairs):
            lines.append(f'jobs/bench/bill.py: "{bill.kind}": Requests({now.reads:.0f}, {now.writes:.0f}),')
    return lines


def main(config: BillConfig) -> None:
    """Measure, write, print the table."""
    # SIGTERM becomes an exception, so that the store is ended and the temporary folder removed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="yolact-bill-"))
    try:
        bills, lease = measure(config, folder)
    finally:
        shutil.rmtree(folder)
    config.output.mkdir(parents=True, exist_ok=True)
    results = {"bills": [asdict(bill) for bill in bills], "lease_per_hour": lease}
    (config.output / "bill.json").write_text(json.dumps(results, indent=1) + "\n")
    (config.output / "bill.md").write_text(markdown_table(bills, lease))
    print("\n".join([markdown_table(bills, lease), *differences(bills)]))
    if config.page is not None:
        put_into_page(config.page, "bill", markdown_table(bills, lease))


if __name__ == "__main__":
    run_benchmark(BillConfig, __doc__, main)
