"""Measures the CPU time of an image without Ray: it runs the stages of the pipeline in one plain loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.scale.stand_in import CLASS_NAMES, StandInPredictor
from jobs import storage
from jobs.label.pipeline.stages import (
    WHOLE_UNITS,
    Destination,
    InputLimits,
    Labeller,
    ReadSettings,
    decode_and_prepare,
    fetch_and_decode,
)
from jobs.lake import ParquetColumns
from jobs.table import parquet as tables
from jobs.table.output import Output
from yolact.images.prepare import PreparedImage

_LIMITS = InputLimits(max_pixels=178_956_970, max_bytes=256 << 20)


@dataclass(frozen=True)
class PlainLoop:
    """CPU milliseconds per image: decoding alone, and all stages from fetch to commit."""

    images: int
    decode_cpu_ms: float
    all_cpu_ms: float


def run_plain_loop(output: Output, scratch: Path, *, input_size: int, images: int) -> PlainLoop:
    """Run the stages on units of the first part of `output`, a finished run, until `images` are done.

    They commit under `scratch`.
    """
    own = Output.at(str(scratch))
    storage.put_atomic(own.manifest_part(0), storage.read_bytes(output.manifest_part(0)))
    units = dict.fromkeys(tables.read(own.manifest_part(0))["unit"].to_pylist())
    decoder = _TimedDecoder()
    fetch = partial(
        fetch_and_decode,
        output=own,
        read=ReadSettings(_LIMITS, ParquetColumns(), input_size),
        mode=replace(WHOLE_UNITS, decode=decoder),
    )
    labeller = Labeller(StandInPredictor(1), Destination(own, CLASS_NAMES, {}), WHOLE_UNITS)
    done = 0
    start = time.process_time()
    for packed in fetch(units):
        record = labeller(packed)
        if record.problem is not None:
            raise RuntimeError(record.problem)
        done += record.images
        if done >= images:
            break
    spent = time.process_time() - start
    return PlainLoop(done, 1000 * decoder.seconds / done, 1000 * spent / done)


class _TimedDecoder:
    """Calls `decode_and_prepare` and adds up its CPU time."""

    def __init__(self, decode: Callable[[bytes, ReadSettings], PreparedImage] = decode_and_prepare) -> None:
        self._decode = decode
        self.seconds = 0.0

    def __call__(self, data: bytes, read: ReadSettings) -> PreparedImage:
        start = time.process_time()
        try:
            return self._decode(data, read)
        finally:
            self.seconds += time.process_time() - start
