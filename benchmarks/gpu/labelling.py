"""The network alone, the whole way from prepared images to run lengths, and what it asks of the card."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.launches import count_launches
from benchmarks.gpu.machine import seconds_per_call, wait_for
from benchmarks.postprocess import make_scene
from yolact.images.prepare import PreparedImage, prepare_image
from yolact.inference.detections import Detections
from yolact.inference.engine import Engine
from yolact.inference.engine_choice import AskedEngine, AskedPrecision
from yolact.inference.nms import NMS_KINDS
from yolact.inference.predictor import Predictor
from yolact.network.model import RawPredictions, build_yolact

#: of the photos that are labelled; most of COCO's have it
HEIGHT, WIDTH = 480, 640


def network_speeds(
    name: str, device: torch.device, precision: AskedPrecision, engine: AskedEngine, batches: tuple[int, ...]
) -> dict[str, Any]:
    """Images/s of the network alone by batch size, inputs on the device; and its GFLOP per image."""
    model = build_yolact(name).eval().to(device)
    size = model.config.input_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.infer(torch.zeros(1, 3, size, size, device=device))
    speeds = {}
    for batch in batches:
        predictor = Predictor(model, device, precision, batch_size=batch, engine=engine)
        images = torch.randn(batch, 3, size, size, device=device)
        speeds[str(batch)] = batch / seconds_per_call(partial(predictor._engine, images), device)
        del predictor
    return {"gflop": counter.get_total_flops() / 1e9, "images_per_second": speeds}


class SceneEngine:
    """Runs the engine and gives back a scene instead of its outputs: random weights would find nothing."""

    def __init__(self, engine: Engine, scene: RawPredictions) -> None:
        self.engine, self.scene = engine, scene

    def __call__(self, images: Tensor) -> RawPredictions:
        self.engine(images)
        return self.scene

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        running = self.engine.start(images)

        def finish() -> RawPredictions:
            running()
            return self.scene

        return finish


def scene_of(predictor: Predictor, instances: int) -> RawPredictions:
    """The same scene for each image of a batch."""
    raw, _ = make_scene(predictor.model.config, instances)
    boxes, classes, coefficients, prototypes = (
        part.expand(predictor.batch_size, *part.shape[1:]).to(predictor.device, copy=True) for part in raw[:4]
    )
    return RawPredictions(boxes, classes, coefficients, prototypes, None)


def photos(count: int, input_size: int) -> list[PreparedImage]:
    """Prepared images of noise."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(min(count, 8))]
    return [prepare_image(pixels[index % len(pixels)], input_size) for index in range(count)]


def predictor_with_scene(
    device: torch.device, batch: int, instances: int, engine: AskedEngine = "eager"
) -> tuple[Predictor, RawPredictions]:
    """R-50 in the precision that labelling takes by itself."""
    precision: AskedPrecision = "bfloat16" if device.type == "cuda" else "float32"
    predictor = Predictor(build_yolact("yolact_resnet50").eval(), device, precision, batch_size=batch, engine=engine)
    scene = scene_of(predictor, instances)
    predictor._engine = SceneEngine(predictor._engine, scene)
    return predictor, scene


def whole_path(device: torch.device, batch: int, instances: int, engine: AskedEngine = "eager") -> dict[str, float]:
    """Milliseconds an image of each stage; images/s of all of it, in calls of eight batches, by one and two threads."""
    predictor, scene = predictor_with_scene(device, batch, instances, engine)
    images = photos(batch, predictor.model.config.input_size)
    found = predictor.predict_prepared(images)
    if [len(detections) for detections in found] != [instances] * batch:
        raise AssertionError(f"{[len(detections) for detections in found]} detections instead of {instances} each")
    inputs = predictor._network_inputs(images)
    with torch.inference_mode():
        stages = {
            "input_ms": seconds_per_call(lambda: predictor._network_inputs(images), device),
            "network_ms": seconds_per_call(lambda: predictor._engine(inputs), device),
            "postprocess_ms": seconds_per_call(lambda: predictor.postprocess(scene, images), device),
        }
    rounds = images * (8 if device.type == "cuda" else 1)

    def together() -> None:
        for done in [pool.submit(predictor.predict_prepared, rounds) for _ in range(2)]:
            done.result()

    whole = seconds_per_call(lambda: predictor.predict_prepared(rounds), device, 1.0) / len(rounds)
    with ThreadPoolExecutor(2) as pool:
        two = seconds_per_call(together, device, 1.0) / len(rounds) / 2
    return {name: 1000 * seconds / batch for name, seconds in stages.items()} | {
        "images_per_second": 1 / whole,
        "by_two_threads": 1 / two,
    }


def both_ways(device: torch.device, batch: int) -> dict[str, Any]:
    """How many detections are the same, to the bit, image by image and all images at once; on scenes of all sizes."""
    found: dict[str, Any] = {}
    for nms in NMS_KINDS:
        predictor = Predictor(build_yolact("yolact_resnet50").eval(), device, "float32", nms=nms, batch_size=batch)
        scenes = [make_scene(predictor.model.config, 1 + 13 * index % 100, seed=index)[0] for index in range(batch)]
        boxes, classes, coefficients, prototypes = (
            torch.cat(parts).to(device) for parts in zip(*[scene[:4] for scene in scenes], strict=True)
        )
        raw = RawPredictions(boxes, classes, coefficients, prototypes, None)
        sizes = [(480, 640), (37, 1500), (1200, 90), (427, 640)]
        images = [
            prepare_image(np.zeros((*sizes[index % len(sizes)], 3), np.uint8), predictor.model.config.input_size)
            for index in range(batch)
        ]
        ways = []
        for predictor._in_batches in (False, True):
            ways.append([one for detections in predictor.postprocess(raw, images) for one in each(detections)])
        same = sum(a[:3] == b[:3] for a, b in zip(*ways, strict=True))
        masks = sum(a[3] == b[3] for a, b in zip(*ways, strict=True))
        found[nms] = {"detections": len(ways[0]), "same": same, "same_masks": masks}
    return found


def each(detections: Detections) -> list[tuple[Any, ...]]:
    """Box, score, label and mask of each detection."""
    columns = (detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
    return list(zip(*columns, [mask["counts"] for mask in detections.masks], strict=True))


def counts(device: torch.device, batch: int, instances: int) -> dict[str, Any]:
    """Kernels, copies, waits, and the time in which the card works: of one batch by stage, and of four batches."""
    predictor, scene = predictor_with_scene(device, batch, instances)
    images = photos(batch, predictor.model.config.input_size)
    predictor.predict_prepared(images * 2)
    wait_for(device)
    found: dict[str, Any] = {
        "input": count_launches(lambda: predictor._network_inputs(images), device),
        "postprocess": count_launches(lambda: predictor.postprocess(scene, images), device),
        "four batches": count_launches(lambda: predictor.predict_prepared(images * 4), device),
    }
    return found
