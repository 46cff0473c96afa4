"""The one way from pixels to detections: labelling, evaluation and the notebook all use `Predictor`.

Shapes: H × W an image, B images of a batch, S the network input's side.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolact.config import NmsKind
from yolact.geometry.boxes import relative_to_pixels
from yolact.geometry.rle import encode_mask_logits
from yolact.images.network_input import batch_input, network_input
from yolact.images.prepare import PreparedImage
from yolact.images.tile_config import TileConfig
from yolact.images.tiles import cut, prepare_for_tiles, tile_windows
from yolact.inference.batch_postprocess import postprocess_batch
from yolact.inference.detections import DetectionRules, Detections
from yolact.inference.engine import make_engine
from yolact.inference.engine_choice import AskedEngine, AskedPrecision, capabilities_here, choose_engine
from yolact.inference.nms import NMS_KINDS
from yolact.inference.postprocess import detect, instance_masks
from yolact.inference.precision import full_float32
from yolact.inference.tiles import MergeRules, TileDetections, merge_tiles
from yolact.network.model import RawPredictions, Yolact

if TYPE_CHECKING:
    from yolact.inference.openvino_engine import OpenVinoNetwork


#: memory that holds a batch of 64 for every model of the paper. Cards of 16 GiB report a little less
_LARGE_GPU_BYTES = 15 << 30


class Predictor:
    """Detects instances with one model under fixed settings.

    Every image is computed in a batch of exactly `batch_size`, filled up with blank images. So for a fixed batch size
    the result of an image has the same bits, whichever images it comes with.

    Threads may share a predictor. One call has the network at a time; a call gives it to the next one before it makes
    its own last masks. A predictor pickles as its model and settings: the process that unpickles it makes the engine
    anew, for the same precision and engine, and `choice.reason` is then "as asked for".

    Args:
        model: is moved to the device and put in evaluation mode.
        device: "auto" takes the GPU where there is one.
        precision: of the network, see docs/engines.md; everything after the network is float32. "float32" is the exact
            path; "auto" picks by what this machine can do; "int8" needs `network`.
        score_threshold: detections with a score at or below it are left out, 0..1. One for all classes, or one for each
            class in the model's order; `math.inf` leaves a class out before its masks are made.
        max_detections: per image. None takes the config's (100), and with "fast-cross-class" the release's: no limit.
        nms: "fast", "fast-cross-class" or "standard"; None takes the config's ("fast" for all models of the paper).
        batch_size: images per run of the network; None takes 64 on a GPU with 16 GiB and more, 16 on a smaller one, 1
            on a CPU.
        engine: what runs the network: "eager", "compiled" (torch.compile: the first call takes a minute, later
            processes find the code in a cache), "openvino", or "auto" for the fastest of the precision.
        network: for "openvino", made earlier by `convert` of `yolact.inference.openvino_engine`; for "int8" by its
            `quantise`.
        tile: how images that are larger than a tile are cut into tiles; None cuts none. Detections are in the frame of
            the whole image in any case. `max_detections` is then the limit of each tile.

    `choice` tells which precision and engine were taken, and why.

    Raises:
        ValueError: for a setting out of its range, "cuda" where there is no GPU, or an engine that is not there.
    """

    def __init__(
        self,
        model: Yolact,
        device: str | torch.device = "auto",
        precision: AskedPrecision = "float32",
        score_threshold: float | Sequence[float] = 0.15,
        max_detections: int | None = None,
        nms: NmsKind | None = None,
        batch_size: int | None = None,
        engine: AskedEngine = "auto",
        network: OpenVinoNetwork | None = None,
        tile: TileConfig | None = None,
    ) -> None:
        nms = nms or model.config.nms.kind
        if nms not in NMS_KINDS:
            raise ValueError(f"nms {nms!r} is not one of {', '.join(NMS_KINDS)}")
        least, by_class = _thresholds(score_threshold, model.config.num_classes)
        for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.device = _device(device)
        self.choice = choose_engine(precision, engine, capabilities_here(self.device.type))
        self.model = model.to(self.device).eval()
        self.precision = self.choice.precision
        self.tile = tile
        self.batch_size = batch_size or _usual_batch_size(self.device)
        self._engine = make_engine(self.model, self.device, self.choice, self.batch_size, network)
        self._has_network = threading.Lock()
        self._network = network
        settings = replace(model.config.nms, kind=nms)
        if max_detections is not None:
            settings = replace(settings, max_detections=max_detections)
        self._rules = DetectionRules(settings, least, max_detections, by_class)
        # a CPU is faster with one image at a time, whose values stay in its caches
        self._in_batches = self.device.type == "cuda"

    def __getstate__(self) -> tuple[Any, ...]:
        """The arguments of `__init__`, in order: locks, threads and compiled code cannot be pickled."""
        return (
            self.model,
            str(self.device),
            self.choice.precision,
            self._rules.class_thresholds or self._rules.score_threshold,
            self._rules.limit,
            self._rules.settings.kind,
            self.batch_size,
            self.choice.engine,
            self._network,
            self.tile,
        )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Raises `ValueError` where this machine cannot run the same engine."""
        Predictor.__init__(self, *state)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detect in images.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes; an empty list gives an empty list.

        Returns:
            One `Detections` per image, in order.

        Raises:
            ValueError: for another dtype or shape.
        """
        return self.predict_prepared([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """Drop the pixels that the network never looks at; `predict_prepared` takes the result."""
        return prepare_for_tiles(image, self.model.config.input_size, self.tile)

    @torch.inference_mode()
    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """As calling the predictor, for images that went through `prepare`, perhaps in another process."""
        if self.tile is None:
            return self._predict(images)
        size = self.model.config.input_size
        # tiles of all images fill the batches together; each is cut when its batch needs it
        found = iter(self._predict(part for image in images for part in cut(image, size, self.tile)))
        return [self._merged(image, found, self.tile) for image in images]

    def _merged(self, image: PreparedImage, found: Iterator[Detections], tile: TileConfig) -> Detections:
        """The detections of one image; takes those of its tiles, or its own, from `found`."""
        if not tile.cuts(image.height, image.width):
            return next(found)
        windows = tile_windows(image.height, image.width, tile)
        tiles = [TileDetections(window, next(found)) for window in windows]
        whole = next(found) if tile.whole_image else None
        rules = MergeRules(
            tile_size=tile.size,
            margin=-(-tile.size // self.model.config.prototype_size),
            overlap_threshold=self._rules.settings.iou_threshold,
            limit=tile.max_detections,
        )
        return merge_tiles(tiles, whole, image.height, image.width, rules)

    def _predict(self, images: Iterable[PreparedImage]) -> list[Detections]:
        """Run the network on images as they are; one `Detections` for each, in order."""
        inputs = iter(images)
        batches = iter(lambda: list(islice(inputs, self.batch_size)), [])
        if self.device.type == "cuda":
            return self._predict_on_gpu(batches)
        detections: list[Detections] = []
        batch = next(batches, None)
        if batch is None:
            return detections
        first = self._network_inputs(batch)
        with self._has_network:
            running = self._engine.start(first)
            for following in batches:
                following_inputs = self._network_inputs(following)
                raw = running()
                # the next batch is in the network while this one's masks are made
                running = self._engine.start(following_inputs)
                detections += self.postprocess(raw, batch)
                batch = following
            raw = running()
        return detections + self.postprocess(raw, batch)

    def _predict_on_gpu(self, batches: Iterable[Sequence[PreparedImage]]) -> list[Detections]:
        """Has the next batch in the network's stream while the one before is post-processed in a stream of its own."""
        stream = torch.cuda.Stream(self.device)
        detections: list[Detections] = []
        running: list[tuple[RawPredictions, torch.cuda.Event, Sequence[PreparedImage]]] = []

        def finish() -> None:
            raw, launched, batch = running.pop()
            stream.wait_event(launched)
            with torch.cuda.stream(stream):
                # returns when all of it is on the host: until then `raw` keeps its memory from the network's stream
                detections.extend(self.postprocess(raw, batch))

        for batch in batches:
            inputs = self._network_inputs(batch)
            with self._has_network:
                raw = self._engine.start(inputs)()
                launched = torch.cuda.current_stream(self.device).record_event()
            if running:
                finish()
            running.append((raw, launched, batch))
        if running:
            finish()
        return detections

    @torch.inference_mode()
    def infer(self, images: Sequence[PreparedImage]) -> RawPredictions:
        """First half of `predict_prepared`: at most `batch_size` images → raw predictions, float32, on the device.

        Raises:
            ValueError: for more images than `batch_size`.
        """
        if len(images) > self.batch_size:
            raise ValueError(f"at most {self.batch_size} images in one batch (batch_size), not {len(images)}")
        inputs = self._network_inputs(images)
        with self._has_network:
            return self._engine(inputs)

    @torch.inference_mode()
    def postprocess(self, raw: RawPredictions, images: Sequence[PreparedImage]) -> list[Detections]:
        """Second half of `predict_prepared`: the raw predictions of `images` → their detections."""
        with full_float32():
            if self._in_batches and images:
                sizes = [(image.height, image.width) for image in images]
                together = postprocess_batch(self.model, raw, sizes, self._rules)
                if together is not None:
                    return together
            return [self._detections(raw, index, image) for index, image in enumerate(images)]

    def _network_inputs(self, images: Sequence[PreparedImage]) -> Tensor:
        """(batch_size, 3, S, S) float32 on the device; blank images fill up the batch."""
        if self.device.type == "cuda":
            return batch_input(images, self.model.config, self.device, self.batch_size)
        size = self.model.config.input_size
        inputs = torch.zeros((self.batch_size, 3, size, size), device=self.device)
        for index, image in enumerate(images):
            inputs[index] = network_input(image, self.model.config, self.device)
        return inputs

    def _detections(self, raw: RawPredictions, index: int, image: PreparedImage) -> Detections:
        instances = detect(raw, index, self.model.anchors, self._rules)
        masks = instance_masks(self.model, raw.prototypes[index], instances)
        rles, areas = encode_mask_logits(masks.logits, masks.regions, image.height, image.width)
        boxes = relative_to_pixels(instances.boxes_relative, image.height, image.width)
        return Detections(
            boxes=boxes.cpu().numpy(),
            scores=instances.scores.cpu().numpy(),
            mask_scores=None if masks.mask_scores is None else masks.mask_scores.cpu().numpy(),
            labels=instances.labels.cpu().numpy(),
            areas=areas,
            masks=rles,
            height=image.height,
            width=image.width,
        )


def _thresholds(given: float | Sequence[float], num_classes: int) -> tuple[float, tuple[float, ...] | None]:
    """The lowest threshold, and that of each class where they were given by class. Raises `ValueError`."""
    by_class = tuple(given) if isinstance(given, Sequence) else None
    if by_class is not None and len(by_class) != num_classes:
        raise ValueError(f"score_threshold has {len(by_class)} values, the model has {num_classes} classes")
    least = given if by_class is None else min(by_class)
    assert isinstance(least, int | float)
    if not 0 <= least <= 1 or any(not one >= 0 for one in by_class or ()):
        raise ValueError(f"score_threshold must lie in 0..1, not {given}")
    return least, by_class


def _usual_batch_size(device: torch.device) -> int:
    if device.type == "cpu":
        return 1
    # each batch costs a GPU's host the same time, which 16 images hardly pay back
    return 64 if torch.cuda.get_device_properties(device).total_memory >= _LARGE_GPU_BYTES else 16


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but PyTorch sees no GPU here: use 'cpu' or 'auto'")
    return chosen
