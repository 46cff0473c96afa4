"""Reads the images of a label table from the lake, by the ids of the rows."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from jobs import lake, storage
from jobs.runtime.errors import UsageError
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.read import LabelTable
from jobs.table.record import RunRecord
from yolact.images.header import stored_orientation

_EXIF_ORIENTATION = 0x0112
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


@dataclass(frozen=True)
class ImageSource:
    """Finds images through the manifest beside the labels. Without a manifest it reads plain objects by their `uri`.

    `columns` are the Parquet columns that the user gave to the run. `patience_seconds` is how long requests are
    repeated while the store does not answer; None is as long as in the label job.
    """

    output: str | None
    max_bytes: int = 256 << 20
    patience_seconds: float | None = None
    columns: lake.ParquetColumns | None = None

    @classmethod
    def of(cls, table: LabelTable, patience_seconds: float | None = None) -> ImageSource:
        """The images of a table; `columns` come from its run.json. Raises what `LabelTable.run` raises."""
        identity = (table.run or RunRecord()).identity
        columns = lake.ParquetColumns(identity.get("image_column"), identity.get("id_column"))
        return cls(table.output, patience_seconds=patience_seconds, columns=columns)

    def fetch(self, part: str, rows: Sequence[tuple[str, str]]) -> list[bytes | lake.Problem]:
        """Encoded bytes for rows of one label file, in order; a `Problem` for an image that cannot be read.

        `part` is the label file's name ("part-000000.parquet"), `rows` are (image_id, uri). Neighbours in a tar shard
        are read together. Raises `storage.TransientStorageError` where the store does not answer.
        """
        addresses = self._addresses(part, [image_id for image_id, _ in rows])
        wanted = [addresses.get(image_id) or _plain_address(image_id, uri) for image_id, uri in rows]
        retry = None if self.patience_seconds is None else storage.Retry(total_seconds=self.patience_seconds)
        return list(lake.fetch_rows(wanted, max_bytes=self.max_bytes, columns=self.columns, retry=retry))

    def _addresses(self, part: str, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        if self.output is None:
            return {}
        table = _manifest_part(Output(self.output).manifest_beside(part))
        if table is None:
            return {}
        found = table.filter(pc.is_in(table["image_id"], pa.array(image_ids, pa.string())))
        return {row["image_id"]: row for row in found.to_pylist()}


@functools.lru_cache(maxsize=2)
def _manifest_part(uri: str) -> pa.Table | None:
    try:
        return tables.read(uri)
    except storage.ObjectMissingError:
        return None


def _plain_address(image_id: str, uri: str) -> dict[str, Any]:
    if image_id != lake.object_id(uri):
        raise UsageError(
            f"{image_id!r} lies inside {uri!r} and only the run's manifest/ says where; "
            "give the OUTPUT of `yolact label`, not single files of it"
        )
    return {
        "image_id": image_id,
        "uri": uri,
        "offset": None,
        "length": None,
        "size": None,
        "etag": None,
        "problem": None,
    }


def upright(data: bytes) -> bytes:
    """The same encoded image with its EXIF orientation applied: labels count pixels that way, and few readers do it.

    An image that needs no turn comes back unchanged. Another is encoded again in its own format: lossless where the
    format is lossless, JPEG at quality 95.
    """
    # XMP data may also state an orientation; labels ignore that one
    if stored_orientation(data) == 1:
        return data
    with Image.open(io.BytesIO(data)) as image:
        if image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1):
            return data
        stream = io.BytesIO()
        kind = image.format or "PNG"
        ImageOps.exif_transpose(image).save(stream, kind, **_SAVE_OPTIONS.get(kind, {}))
    return stream.getvalue()
