"""The stages of the labelling pipeline, as plain functions and classes that know nothing of Ray.

    (unit numbers) ─▶ fetch_and_decode ─▶ Labeller (model, commit) ─▶ UnitRecord

A fault of one image becomes a row with an error. A fault of the store, or of the whole unit, is reported as
`UnitRecord.problem`, and the unit is not committed.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from jobs import lake, storage
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.unit import UnitImage, UnitRecord, label_rows, pack_unit, unpack_images, unpack_record
from jobs.table import parquet as tables
from jobs.table.output import UNITS_PER_PART, Output
from jobs.table.policy import Policy
from jobs.table.schema import STATUS_OK
from yolact.images.decode import ImageError, decode_image
from yolact.images.prepare import PreparedImage
from yolact.images.tile_config import TileConfig
from yolact.images.tiles import count_inputs, prepare_for_tiles

if TYPE_CHECKING:
    from yolact.inference.predictor import Detections


class UnitPredictor(Protocol):
    """What the pipeline uses of `yolact.Predictor`, from two threads."""

    batch_size: int

    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """One `Detections` per image, in order."""


@dataclass(frozen=True)
class InputLimits:
    """What an image may be: `max_pixels` (height × width) and `max_bytes` of the encoded file."""

    max_pixels: int
    max_bytes: int


@dataclass(frozen=True)
class ReadSettings:
    """How the images of a lake are read: what they may be, where Parquet files have them, and the network's input."""

    limits: InputLimits
    columns: lake.ParquetColumns
    input_size: int
    """side of the network's square input in pixels"""
    tile: TileConfig | None = None
    """how images that are larger than a tile are cut; None cuts none"""


@dataclass(frozen=True)
class IndexedLake:
    """A lake with its manifest: the OUTPUT that has the manifest, its parts, and how to read the images."""

    output: Output
    parts: tuple[Part, ...]
    read: ReadSettings


@dataclass(frozen=True)
class Destination:
    """Where rows go: the OUTPUT, the names of the model's classes, and the metadata that every file gets."""

    output: Output
    class_names: tuple[str, ...]
    metadata: Mapping[str, str]
    policy: Policy | None = None
    """which instances become part of a row, and under which class names"""


@functools.lru_cache(maxsize=2)
def _manifest_part(uri: str) -> pa.Table:
    # one worker often gets neighbouring units one after the other; a part takes about ten megabytes
    return tables.read(uri)


@contextmanager
def _timed(record: UnitRecord, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    record.seconds[stage] = record.seconds.get(stage, 0.0) + time.perf_counter() - start


def decode_and_prepare(data: bytes, read: ReadSettings) -> PreparedImage:
    """Decode the bytes of an image file and keep the pixels that the model needs. Raises `ImageError`."""
    pixels = decode_image(data, max_pixels=read.limits.max_pixels, max_bytes=read.limits.max_bytes)
    return prepare_for_tiles(pixels, read.input_size, read.tile)


#: a decoder that takes longer is stuck and is ended; no image within the limits takes this long
TIMEOUT_SECONDS = 120.0


def decode_in_child(data: bytes, read: ReadSettings) -> PreparedImage:
    """`decode_and_prepare` in a child process. If the child dies, raises `ImageError` of status "undecodable"."""
    try:
        return lake.call_in_child(decode_and_prepare, TIMEOUT_SECONDS, data, read)
    except lake.ChildDiedError as error:
        if error.timed_out:
            raise ImageError("undecodable", f"decoding took more than {TIMEOUT_SECONDS:.0f} s and was ended") from None
        raise ImageError("undecodable", "the image killed its decoder process") from None


@dataclass(frozen=True)
class PassMode:
    """How one pass over the missing units handles their images."""

    decode: Callable[[bytes, ReadSettings], PreparedImage]
    """Makes the prepared image from the encoded bytes; raises `ImageError`."""
    fetch_in_child: bool
    """Rows of Parquet files are read in a child process, because a broken file can kill the process that reads it."""
    one_image_at_a_time: bool
    """The model gets one image in each call. An image that the model fails on becomes a row with an error."""
    bundles_per_actor: int | None
    """How many bundles one actor works on at the same time; None: as many as the plan says."""
    units_fetched_ahead: int
    """Units that are fetched while the unit before them is decoded."""


#: the first pass
WHOLE_UNITS = PassMode(
    decode=decode_and_prepare,
    fetch_in_child=False,
    one_image_at_a_time=False,
    bundles_per_actor=None,
    units_fetched_ahead=1,
)
#: the second pass, for units that failed: an image that kills its process or the model's call costs no other image
ONE_IMAGE_AT_A_TIME = PassMode(
    decode=decode_in_child,
    fetch_in_child=True,
    one_image_at_a_time=True,
    bundles_per_actor=1,
    # decoding and fetching share the child process
    units_fetched_ahead=0,
)


@dataclass(frozen=True)
class _Fetched:
    """A unit whose bytes were fetched. `rows` are its manifest rows; both lists are empty if `record` has a problem."""

    record: UnitRecord
    rows: Sequence[Mapping[str, Any]]
    data: Sequence[bytes | lake.Problem]


def fetch_and_decode(
    units: Iterable[int],
    *,
    output: Output,
    read: ReadSettings,
    mode: PassMode = WHOLE_UNITS,
) -> Iterator[pa.Table]:
    """Fetch and decode the images of units, one after the other; yields one row of `pack_unit` for each.

    The bytes of the next unit are fetched while a unit is decoded, so that the network and the CPU work at once.
    """
    waiting = iter(units)
    with ThreadPoolExecutor(1, "fetch") as pool:

        def fetch(count: int) -> list[Future[_Fetched]]:
            return [pool.submit(_fetch, unit, output, read, mode) for unit in islice(waiting, count)]

        ahead = fetch(1)
        while ahead:
            fetched = ahead.pop(0).result()
            ahead += fetch(mode.units_fetched_ahead - len(ahead))
            yield _decode(fetched, read, mode)
            ahead += fetch(1 - len(ahead))


def _fetch(unit: int, output: Output, read: ReadSettings, mode: PassMode) -> _Fetched:
    record = UnitRecord(unit)
    retry = storage.Retry()
    rows: Sequence[Mapping[str, Any]] = []
    data: Sequence[bytes | lake.Problem] = []
    try:
        with _timed(record, "fetch"):
            part = _manifest_part(output.manifest_part(unit // UNITS_PER_PART))
            rows = manifest.rows_of_unit(part, unit).to_pylist()
            record.images = len(rows)
            data = lake.fetch_rows(
                rows,
                max_bytes=read.limits.max_bytes,
                columns=read.columns,
                retry=retry,
                others=_some_uris(part),
                in_child=mode.fetch_in_child,
            )
    except storage.TransientStorageError as error:
        record.problem, record.unreachable = str(error), True
        rows = []
    record.retries = dict(retry.counts)
    return _Fetched(record, rows, data)


def _decode(fetched: _Fetched, read: ReadSettings, mode: PassMode) -> pa.Table:
    with _timed(fetched.record, "decode"):
        images = [
            _unit_image(row, data, lambda encoded: mode.decode(encoded, read))
            for row, data in zip(fetched.rows, fetched.data, strict=True)
        ]
    prepared = [image.prepared for image in images if image.prepared is not None]
    fetched.record.inputs = sum(count_inputs(image.height, image.width, read.tile) for image in prepared)
    return pack_unit(fetched.record, images)


def _some_uris(part: pa.Table, most: int = 8) -> list[str]:
    """URIs of up to `most` different objects, spread evenly over a part of the manifest."""
    step = max(1, part.num_rows // most)
    return list(dict.fromkeys(part["uri"][row].as_py() for row in range(0, part.num_rows, step)))[:most]


def _unit_image(
    row: Mapping[str, Any], data: bytes | lake.Problem, decode: Callable[[bytes], PreparedImage]
) -> UnitImage:
    image_id, uri = row["image_id"], row["uri"]
    if isinstance(data, lake.Problem):
        return UnitImage(image_id, uri, data.status, data.reason, None)
    try:
        return UnitImage(image_id, uri, STATUS_OK, None, decode(data))
    except ImageError as error:
        return UnitImage(image_id, uri, error.status, error.reason, None)


class Labeller:
    """Runs the model over one unit and commits the unit's rows with a single put."""

    def __init__(
        self,
        predictor: UnitPredictor,
        destination: Destination,
        mode: PassMode,
        threads: Executor | None = None,
    ) -> None:
        """`threads` unpack units and have the model; without them the caller's thread does so."""
        self.predictor, self.destination, self.mode = predictor, destination, mode
        self._threads = threads

    def __call__(self, packed: pa.Table) -> UnitRecord:
        """Label one unit, a row of `fetch_and_decode`."""
        record = unpack_record(packed)
        if record.problem is None:
            try:
                self._label(packed, record)
            except storage.TransientStorageError as error:
                record.problem, record.unreachable = str(error), True
            except Exception as error:
                # any error of the model: the unit is not committed, and the next pass tries it one image at a time
                record.problem = f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
        return record

    def _label(self, packed: pa.Table, record: UnitRecord) -> None:
        if self._threads is None:
            images, detections = self._detect(packed, record)
        else:
            images, detections = self._threads.submit(self._detect, packed, record).result()
        with _timed(record, "commit"):
            retry = storage.Retry()
            rows = label_rows(images, detections, self.destination.class_names)
            if self.destination.policy is not None:
                rows = self.destination.policy.apply_to_table(rows)
            rows = rows.replace_schema_metadata(dict(self.destination.metadata))
            staged = self.destination.output.staged_unit(record.unit)
            storage.put_atomic(staged, tables.to_bytes(rows), retry=retry)
            record.retries = dict(Counter(record.retries) + retry.counts)
        record.instances = len(rows["instances"].combine_chunks().flatten())
        record.failures = dict(Counter(image.status for image in images if image.status != STATUS_OK))

    def _detect(self, packed: pa.Table, record: UnitRecord) -> tuple[list[UnitImage], list[Detections | None]]:
        images = unpack_images(packed)
        with _timed(record, "inference"):
            return self._predict(images)

    def _predict(self, images: list[UnitImage]) -> tuple[list[UnitImage], list[Detections | None]]:
        if self.mode.one_image_at_a_time:
            return self._predict_one_by_one(images)
        found = iter(self.predictor.predict_prepared([i.prepared for i in images if i.prepared is not None]))
        return images, [None if image.prepared is None else next(found) for image in images]

    def _predict_one_by_one(self, images: list[UnitImage]) -> tuple[list[UnitImage], list[Detections | None]]:
        labelled: list[UnitImage] = []
        detections: list[Detections | None] = []
        for image in images:
            found = None
            if image.prepared is not None:
                try:
                    (found,) = self.predictor.predict_prepared([image.prepared])
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
                    image = UnitImage(image.image_id, image.uri, "inference_failed", reason, None)
            labelled.append(image)
            detections.append(found)
        return labelled, detections
