"""OpenVINO networks that are made once: converted ones, and int8 ones quantised on a sample of the lake.

For int8, one Ray task fetches the sample and quantises. The network is kept in `_state/` and its digest in run.json.
The actors get it through Ray's object store. A later start of the run reads the same network from `_state/`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ray
import torch

from jobs import lake, storage
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.stages import IndexedLake, ReadSettings, decode_and_prepare
from jobs.label.plan import Plan
from jobs.runtime.errors import JobError
from jobs.table import parquet as tables
from jobs.table.output import Output
from yolact.images.decode import ImageError
from yolact.inference.engine import cache_folder
from yolact.inference.openvino_engine import OpenVinoNetwork, convert, quantise
from yolact.weights.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from ray import ObjectRef

    from yolact.network.model import Yolact

log = logging.getLogger(__name__)

#: images that int8 is calibrated on. More images change the ranges little, and each runs the float32 network once
SAMPLE_IMAGES = 48
_SAMPLE_PARTS = 8
_SEED = 0
#: part of the name of a cached network; raise it when quantising changes
_INT8_RECIPE = 1


@dataclass(frozen=True)
class Quantisation:
    """What run.json says about the int8 network of a run."""

    calibration_sha256: str
    """of the weights, the bytes of the sample, and the versions of OpenVINO and NNCF"""
    images: int
    model_sha256: str


def sample_rows(output: Output, parts: Sequence[Part], count: int = SAMPLE_IMAGES) -> list[dict[str, Any]]:
    """Manifest rows of `count` images, or of all images if there are fewer. The same manifest gives the same rows.

    The rows come from a few parts. Every image of these parts is chosen with equal probability.
    """
    chooser = random.Random(_SEED)
    chosen = sorted(chooser.sample(parts, min(_SAMPLE_PARTS, len(parts))), key=lambda part: part.number)
    positions = sorted(chooser.sample(range(images := sum(part.images for part in chosen)), min(count, images)))
    rows: list[dict[str, Any]] = []
    first = 0
    for part in chosen:
        inside = [position - first for position in positions if first <= position < first + part.images]
        rows += tables.read(output.manifest_part(part.number)).take(inside).to_pylist() if inside else []
        first += part.images
    return rows


def read_quantised(output: Output, quantisation: Mapping[str, Any]) -> OpenVinoNetwork:
    """The network of an earlier start of this run. Raises `JobError` if it is not the network that run.json names."""
    try:
        quantised = OpenVinoNetwork.from_bytes(storage.read_bytes(output.quantised_model))
    except (storage.ObjectMissingError, ValueError) as error:
        raise JobError(f"the int8 network of this run is gone ({error}); choose another --output") from error
    if quantised.sha256 != quantisation["model_sha256"]:
        raise JobError(f"{output.quantised_model} is not the int8 network that run.json names; choose another --output")
    return quantised


def quantise_on_lake(
    sampled: IndexedLake, model: ObjectRef, weights_sha256: str, plan: Plan
) -> tuple[OpenVinoNetwork, dict[str, Any]]:
    """Quantise in one Ray task and put the network under `_state/`. Returns the network and its `Quantisation`.

    The task gets the CPUs and the threads that the plan has for an actor. `model` is in Ray's object store.
    Raises `JobError` if none of the sampled images can be read, and `storage.TransientStorageError`.
    """
    rows = sample_rows(sampled.output, sampled.parts)
    log.info("int8: calibrating on %d images of the lake", len(rows))
    task = ray.remote(_fetch_and_quantise).options(num_cpus=plan.actor_cpus, max_retries=2)
    try:
        data, digest, images = ray.get(task.remote(rows, model, weights_sha256, sampled.read, plan.threads))
    except ray.exceptions.RayTaskError as error:
        # the user sees the error itself, without Ray's text about a task
        if isinstance(error.cause, (storage.StorageError, JobError)):
            raise error.cause from None
        raise
    quantised = OpenVinoNetwork.from_bytes(data)
    storage.put_atomic(sampled.output.quantised_model, data)
    return quantised, asdict(Quantisation(digest, images, quantised.sha256))


def _fetch_and_quantise(
    rows: Sequence[dict[str, Any]],
    model: Yolact,
    weights_sha256: str,
    read: ReadSettings,
    threads: int,
) -> tuple[bytes, str, int]:
    """Runs in a worker. Returns the network as a file, the digest of what made it, and the number of images."""
    torch.set_num_threads(threads)
    digest = hashlib.sha256(json.dumps([_INT8_RECIPE, weights_sha256, *_versions()]).encode())
    images = []
    # one input for each image, also where images are cut into tiles
    whole = dataclasses.replace(read, tile=None)
    for data in lake.fetch_rows(rows, max_bytes=read.limits.max_bytes, columns=read.columns):
        if not isinstance(data, bytes):
            continue
        try:
            images.append(decode_and_prepare(data, whole))
        except ImageError:
            continue
        digest.update(hashlib.sha256(data).digest())
    if not images:
        raise JobError(f"int8 is calibrated on images of the lake, and none of {len(rows)} sampled ones can be read")
    network = cached_network(f"int8/{digest.hexdigest()}", lambda: quantise(model, images))
    return network.to_bytes(), digest.hexdigest(), len(images)


def _versions() -> list[str]:
    return [importlib.metadata.version(package) for package in ("openvino", "nncf")]


#: part of the name of a cached network; raise it when converting changes
_CONVERT_RECIPE = 1


def cached_network(name: str, make: Callable[[], OpenVinoNetwork]) -> OpenVinoNetwork:
    """The network of that name under `cache_folder()`. If it is missing or broken, `make` makes it again.

    `name` must be different whenever `make` would give a different network. If the folder cannot be written, the next
    run makes the network again.
    """
    path = cache_folder() / f"{name}.zip"
    try:
        return OpenVinoNetwork.from_bytes(read_bytes(path))
    except ValueError:
        network = make()
    try:
        write_bytes(path, network.to_bytes())
    except OSError as error:
        log.warning("the network cannot be kept for later runs: %s", error)
    return network


def converted(model: Yolact, weights_sha256: str) -> OpenVinoNetwork:
    """`convert(model)`, cached under a name made from weights, config and versions."""
    versions = [importlib.metadata.version(package) for package in ("openvino", "torch")]
    made_from = json.dumps([_CONVERT_RECIPE, weights_sha256, model.config.to_dict(), *versions])
    digest = hashlib.sha256(made_from.encode()).hexdigest()
    return cached_network(f"openvino/{digest}", lambda: convert(model))
