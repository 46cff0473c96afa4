"""Measures each stage of the label pipeline alone, with as many copies and the same resources as in the pipeline.

The copies of a stage run at the same time, in Ray actors; the speed of the stage is the sum of their speeds. The
network is timed from prepared pixels to raw predictions, post-processing from raw predictions to run lengths.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import torch

from jobs import lake, storage
from jobs.bench.release_path import simple_detect, simple_masks, simple_rles
from jobs.label.engine import predictor_settings
from jobs.label.manifest import parts as manifest
from jobs.label.options import LabelConfig
from jobs.label.pipeline.stages import IndexedLake, InputLimits, ReadSettings, fetch_and_decode
from jobs.label.pipeline.unit import unpack_images
from jobs.lake import ParquetColumns
from jobs.runtime.model_source import resolve_model
from jobs.table import parquet as tables
from jobs.table.output import UNITS_PER_PART, Output
from jobs.table.record import RunRecord
from yolact.images.decode import ImageError, decode_image
from yolact.images.network_input import network_input
from yolact.images.prepare import PreparedImage, prepare_image

if TYPE_CHECKING:
    from jobs.label.plan import Plan
    from yolact.inference.predictor import Predictor

#: images that the model is timed on; on CPUs each takes up to a second
_MODEL_IMAGES = 48
_PLAIN_LOOP_IMAGES = 12
#: images that are run before the clock starts
_WARM_UP_IMAGES = 3
_DECODE_SECONDS = 3.0


class StageSpeeds:
    """Measures the stages on the images of a finished label run. `record` is its run.json."""

    def __init__(self, label: LabelConfig, record: RunRecord, plan: Plan) -> None:
        source = resolve_model(label.config, label.weights)
        output = Output.at(label.output)
        limits = InputLimits(label.max_pixels, label.max_bytes)
        columns = ParquetColumns(label.image_column, label.id_column)
        parts = [part for generation in manifest.read_generations(output) for part in generation.parts]
        self._settings = predictor_settings(
            label,
            record,
            IndexedLake(output, tuple(parts), ReadSettings(limits, columns, source.config.input_size)),
            source.load(),
            plan,
            keep_quantisation=lambda quantisation: None,
        )
        self._lake = SampleLake(output, limits, columns, source.config.input_size)
        self._units = [unit for part in parts for unit in part.unit_numbers()]
        self._plan = plan

    def model(self) -> dict[str, float]:
        """Images/s of the network and of post-processing, all actors together."""
        plan = self._plan
        speeds = self._on_actors(ModelSpeed, plan.max_actors, plan.actor_cpus, plan.actor_gpus)
        network, postprocess = zip(*speeds, strict=True)
        return {"model_only": sum(network), "postprocess_only": sum(postprocess)}

    def decode(self) -> float:
        """Images/s of fetching, decoding and preparing, all tasks together."""
        return sum(self._on_actors(DecodeSpeed, self._plan.decode_tasks, self._plan.decode_cpus, 0.0))

    def plain_loop(self) -> float:
        """Images/s of the original release's loop, in one process with all the threads of an actor."""
        return self._on_actors(PlainLoopSpeed, 1, self._plan.actor_cpus, 0.0)[0]

    def _on_actors(self, stage: type, count: int, num_cpus: float, num_gpus: float) -> list[Any]:
        remote = ray.remote(stage).options(num_cpus=num_cpus, num_gpus=num_gpus)
        actors = [remote.remote(self._lake, self._units, self._settings, self._plan.threads) for _ in range(count)]
        ray.get([actor.ready.remote() for actor in actors])
        measured: list[Any] = ray.get([actor.measure.remote() for actor in actors])
        for actor in actors:
            ray.kill(actor)
        return measured


class SampleLake:
    """The images of a label run, unit by unit, in the form that its stages get."""

    def __init__(self, output: Output, limits: InputLimits, columns: ParquetColumns, input_size: int) -> None:
        self.output, self.limits, self.columns, self.input_size = output, limits, columns, input_size

    def decode(self, units: Iterable[int]) -> Iterator[pa.Table]:
        read = ReadSettings(self.limits, self.columns, self.input_size)
        return fetch_and_decode(units, output=self.output, read=read)

    def prepared(self, units: Sequence[int], count: int) -> list[PreparedImage]:
        """The first `count` images that can be decoded."""
        images = (image.prepared for packed in self.decode(units) for image in unpack_images(packed))
        return list(itertools.islice((image for image in images if image is not None), count))

    def encoded(self, units: Sequence[int], count: int) -> list[bytes]:
        """The bytes of the first `count` images that can be fetched."""
        found: list[bytes] = []
        for unit in units:
            rows = manifest.rows_of_unit(tables.read(self.output.manifest_part(unit // UNITS_PER_PART)), unit)
            fetched = lake.fetch_rows(
                rows.to_pylist(), max_bytes=self.limits.max_bytes, columns=self.columns, retry=storage.Retry()
            )
            found += [data for data in fetched if isinstance(data, bytes)]
            if len(found) >= count:
                break
        return found[:count]


class ModelSpeed:
    """The network and the post-processing of one actor, batch by batch."""

    def __init__(self, sample: SampleLake, units: Sequence[int], settings: Any, threads: int) -> None:
        self._predictor: Predictor = settings.make_predictor(threads)
        images = sample.prepared(units, _MODEL_IMAGES)
        size = self._predictor.batch_size
        # whole batches only
        images = [image for image, _ in zip(itertools.cycle(images), range(max(size, len(images) // size * size)))]
        self._batches = [images[start : start + size] for start in range(0, len(images), size)]

    def ready(self) -> None:
        self._run(self._batches[: max(1, _WARM_UP_IMAGES // self._predictor.batch_size)])

    def measure(self) -> tuple[float, float]:
        return self._run(self._batches)

    def _run(self, batches: Sequence[Sequence[PreparedImage]]) -> tuple[float, float]:
        network = postprocess = 0.0
        for batch in batches:
            start = time.perf_counter()
            raw = self._predictor.infer(batch)
            self._wait()
            between = time.perf_counter()
            self._predictor.postprocess(raw, batch)
            network += between - start
            postprocess += time.perf_counter() - between
        images = sum(len(batch) for batch in batches)
        return images / network, images / postprocess

    def _wait(self) -> None:
        if self._predictor.device.type == "cuda":
            torch.cuda.synchronize()


class DecodeSpeed:
    """One decode task's work, unit after unit."""

    def __init__(self, sample: SampleLake, units: Sequence[int], settings: Any, threads: int) -> None:
        self._packed = sample.decode(itertools.cycle(units))

    def ready(self) -> None:
        next(self._packed)

    def measure(self) -> float:
        images, start = 0, time.perf_counter()
        for packed in self._packed:
            images += len(unpack_images(packed))
            seconds = time.perf_counter() - start
            if seconds > _DECODE_SECONDS:
                break
        return images / seconds


class PlainLoopSpeed:
    """The work of the original release on an image: float32, one at a time, full-size masks, pycocotools."""

    def __init__(self, sample: SampleLake, units: Sequence[int], settings: Any, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = ray.get(settings.model).eval()
        self._settings = settings
        self._images = sample.encoded(units, _PLAIN_LOOP_IMAGES)

    def ready(self) -> None:
        self._run(self._images[:_WARM_UP_IMAGES])

    def measure(self) -> float:
        return self._run(self._images)

    def _run(self, images: Sequence[bytes]) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for data in images:
                self._label(data)
        return len(images) / (time.perf_counter() - start)

    def _label(self, data: bytes) -> None:
        config = self._model.config
        try:
            pixels = decode_image(data)
        except ImageError:
            return
        raw = self._model.infer(network_input(prepare_image(pixels, config.input_size), config)[None])
        found = simple_detect(raw, 0, self._model.anchors, config.nms, self._settings.score_threshold)
        simple_rles(simple_masks(raw.prototypes[0], found, *pixels.shape[:2]))
