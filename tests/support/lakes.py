"""Small lakes for tests: the same images as loose files, as tar shards and as Parquet, written and read back."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from PIL import Image, ImageDraw

from jobs import lake, storage
from jobs.lake import Source, fetch_rows
from jobs.lake.index import index_source

MAX_BYTES = 10 << 20


def draw_images(count: int, seed: int = 0) -> dict[str, bytes]:
    """`count` small JPEGs of ellipses on a gradient, of several sizes, by file name."""
    rng = np.random.default_rng(seed)
    images = {}
    for i in range(count):
        height, width = (int(side) for side in rng.integers(60, 160, 2))
        ramp = np.linspace(0, 120, width)[None, :, None] + rng.uniform(0, 60, (1, 1, 3))
        image = Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 6))):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            a, b = rng.uniform(5, 30, 2)
            draw.ellipse((x - a, y - b, x + a, y + b), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=92)
        images[f"picture-{i:04d}.jpg"] = file.getvalue()
    return images


def write_files(folder: str, images: Mapping[str, bytes]) -> None:
    filesystem, path = fsspec.url_to_fs(folder)
    filesystem.makedirs(path, exist_ok=True)
    for name, data in images.items():
        filesystem.pipe_file(f"{path}/{name}", data)


def tar_bytes(members: Sequence[tuple[str, bytes]], **options: Any) -> bytes:
    """A tar of the members, in order; `options` go to `tarfile.open`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def write_shards(folder: str, images: Mapping[str, bytes], shards: int) -> None:
    """`shard-NNN.tar`, the images in their order, each with a .json and a .txt that are no images beside it."""
    names = list(images)
    filesystem, path = fsspec.url_to_fs(folder)
    filesystem.makedirs(path, exist_ok=True)
    for number, chosen in enumerate(np.array_split(np.arange(len(names)), shards)):
        members = []
        for i in chosen:
            stem = Path(names[i]).stem
            members += [(f"{stem}.json", b"{}"), (names[i], images[names[i]]), (f"{stem}.txt", b"a caption")]
        filesystem.pipe_file(f"{path}/shard-{number:03d}.tar", tar_bytes(members))


def write_parquet(folder: str, images: Mapping[str, bytes], files: int) -> None:
    """`lake-NNN.parquet` with columns `id` and `image`, several row groups each."""
    names = list(images)
    filesystem, path = fsspec.url_to_fs(folder)
    filesystem.makedirs(path, exist_ok=True)
    for number, chosen in enumerate(np.array_split(np.arange(len(names)), files)):
        table = pa.table({"id": [names[i] for i in chosen], "image": [images[names[i]] for i in chosen]})
        file = io.BytesIO()
        pq.write_table(table, file, row_group_size=5)
        filesystem.pipe_file(f"{path}/lake-{number:03d}.parquet", file.getvalue())


def parquet_of(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file; `options` go to `pyarrow.parquet.write_table`."""
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


class _Kms(pe.KmsClient):
    """Keeps keys as they are: the files of tests need no secret."""

    def __init__(self, config):
        super().__init__()

    def wrap_key(self, key_bytes, master_key_identifier):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return base64.b64decode(wrapped_key)


def encrypted_parquet_of(table: pa.Table, column: str, *, plaintext_footer: bool) -> bytes:
    """With `column` encrypted; without a plain footer the whole file needs a key."""
    configuration = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": [column]}, plaintext_footer=plaintext_footer
    )
    properties = pe.CryptoFactory(_Kms).file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return stream.getvalue()


def put(uri: str, data: bytes = b"x") -> Source:
    """Write an object; returns it as the source that a listing would give."""
    storage.put_atomic(uri, data)
    return Source(*storage.object_info(uri), lake.kind_of(uri))


def fetch(table: pa.Table, **options: Any) -> list[Any]:
    """The bytes of index rows, or their problems; `options` go to `fetch_rows`."""
    return fetch_rows(table.to_pylist(), max_bytes=MAX_BYTES, **options)


def tar_rows(folder: Path, data: bytes) -> list[tuple[str, bytes | str]]:
    """What a tar of these bytes, written into `folder`, holds: (#member, its bytes or the status of its problem)."""
    table = index_source(put(str(folder / "s.tar"), data))
    return [
        (row["image_id"].removeprefix(f"{folder}/s.tar"), fetched if isinstance(fetched, bytes) else fetched.status)
        for row, fetched in zip(table.to_pylist(), fetch(table), strict=True)
    ]
