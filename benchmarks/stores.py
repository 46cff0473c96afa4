"""CPU time of S3 requests: what the jobs use, beside aiobotocore's own calls and obstore.

    AWS_ENDPOINT_URL=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… python -m benchmarks.stores s3://bucket/scratch

Writes loose images, one shard and many small objects below a new folder of the prefix, and removes them at the end. The
ways take turns; each figure is the median of the rounds, in ms of CPU of this process: of a loose image, of an image of
a stretch of a shard, of a listed key. obstore takes its credentials from AWS_* variables alone.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Annotated, Any

import obstore
import s3fs
import tyro
from fsspec.asyn import sync
from obstore.store import S3Store as ObstoreS3

from benchmarks.harness import run_benchmark
from jobs import storage
from jobs.runtime.errors import UsageError

_THREADS = 16


@dataclass(frozen=True)
class StoresConfig:
    """Options of the measurement."""

    prefix: Annotated[str, tyro.conf.Positional]
    """s3://bucket/folder that may be written to"""
    image_bytes: int = 150_000
    """bytes of an image"""
    images: int = 64
    """loose images, and images of the stretch of a shard"""
    keys: int = 3000
    """listed objects"""
    rounds: int = 5
    """turns of each way"""


@dataclass(frozen=True)
class Scratch:
    """What was written for the measurement."""

    bucket: str
    folder: str
    """the key under which everything lies"""
    images: list[storage.ObjectInfo]
    stretch: int
    """bytes of the shard"""

    def uri(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.folder}/{name}"

    def key(self, uri: str) -> str:
        return uri.removeprefix(f"s3://{self.bucket}/")


@dataclass(frozen=True)
class Way:
    """One way to the store: how it reads loose images, reads a stretch, and lists."""

    name: str
    image: Callable[[storage.ObjectInfo], object]
    stretch: Callable[[], object]
    list_keys: Callable[[], object]


def write_scratch(config: StoresConfig) -> Scratch:
    """Write the objects that are read and listed."""
    scheme, path = storage.split_uri(config.prefix)
    if scheme != "s3":
        raise UsageError(f"{config.prefix}: the measurement is of s3:// alone")
    bucket, _, folder = path.rstrip("/").partition("/")
    scratch = Scratch(bucket, f"{folder}/{uuid.uuid4().hex}".lstrip("/"), [], config.image_bytes * config.images)
    with ThreadPoolExecutor(_THREADS) as pool:
        image = os.urandom(config.image_bytes)
        list(pool.map(lambda i: storage.put_atomic(scratch.uri(f"images/{i:05}.jpg"), image), range(config.images)))
        list(pool.map(lambda i: storage.put_atomic(scratch.uri(f"keys/{i:07}.jpg"), b""), range(config.keys)))
    storage.put_atomic(scratch.uri("shard.tar"), os.urandom(scratch.stretch))
    scratch.images.extend(storage.list_objects(scratch.uri("images")))
    return scratch


def ways(scratch: Scratch) -> Iterator[Way]:
    """The ways that are compared."""
    yield Way(
        "jobs.storage",
        lambda item: storage.read_bytes(item.uri, etag=item.etag, size=item.size),
        lambda: storage.read_range(scratch.uri("shard.tar"), 0, scratch.stretch),
        lambda: storage.list_objects(scratch.uri("keys")),
    )
    yield _aiobotocore(scratch)
    yield _obstore(scratch)


def _aiobotocore(scratch: Scratch) -> Way:
    """The calls of the client as aiobotocore has them, through an s3fs filesystem of their own.

    The client of the jobs would not do: its listings are parsed elsewhere.
    """
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)

    async def get(key: str, **arguments: str) -> bytes:
        response = await filesystem._call_s3("get_object", Bucket=scratch.bucket, Key=key, **arguments)
        async with response["Body"] as body:
            return bytes(await body.read())

    async def listed() -> list[dict[str, Any]]:
        arguments = {"Bucket": scratch.bucket, "Prefix": f"{scratch.folder}/keys/"}
        found: list[dict[str, Any]] = []
        while True:
            page = await filesystem._call_s3("list_objects_v2", **arguments)
            found += page.get("Contents", ())
            if not page.get("IsTruncated"):
                return found
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    return Way(
        "aiobotocore",
        lambda item: sync(filesystem.loop, get, scratch.key(item.uri), IfMatch=f'"{item.etag}"'),
        lambda: sync(
            filesystem.loop, get, scratch.key(scratch.uri("shard.tar")), Range=f"bytes=0-{scratch.stretch - 1}"
        ),
        lambda: sync(filesystem.loop, listed),
    )


def _obstore(scratch: Scratch) -> Way:
    store = ObstoreS3(
        scratch.bucket,
        client_options={"allow_http": True, "timeout": timedelta(seconds=60)},
        retry_config={"max_retries": 0},
    )
    whole = (0, scratch.stretch)
    return Way(
        "obstore",
        lambda item: bytes(obstore.get(store, scratch.key(item.uri), options={"if_match": f'"{item.etag}"'}).bytes()),
        lambda: bytes(obstore.get(store, scratch.key(scratch.uri("shard.tar")), options={"range": whole}).bytes()),
        lambda: list(obstore.list(store, f"{scratch.folder}/keys", chunk_size=1000)),
    )


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process, all threads, for one call."""
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1000


def measure(config: StoresConfig) -> None:
    """Print a row for each way."""
    scratch = write_scratch(config)
    try:
        taken: dict[str, list[tuple[float, float, float]]] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            compared = list(ways(scratch))
            for number in range(config.rounds + 1):
                for way in compared:
                    figures = (
                        cpu_ms(lambda way=way: list(pool.map(way.image, scratch.images))) / config.images,  # type: ignore[misc]
                        cpu_ms(way.stretch) / config.images,
                        cpu_ms(way.list_keys) / config.keys,
                    )
                    if number:  # the first turn opens connections
                        taken.setdefault(way.name, []).append(figures)
    finally:
        storage.delete_objects([item.uri for item in storage.list_objects(scratch.uri(""))])
    print("| way | a loose image | an image of a stretch | a listed key |\n|---|---|---|---|")
    for name, rounds in taken.items():
        loose, stretch, key = (median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {loose:.2f} ms | {stretch:.2f} ms | {key * 1000:.0f} µs |")


if __name__ == "__main__":
    run_benchmark(StoresConfig, __doc__, measure)
