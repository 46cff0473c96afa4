"""A model in its fastest form for a device and an arithmetic, behind one call: images → raw predictions in float32.

Shapes: B images, S the network input's side.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolact.inference.engine_choice import EngineChoice
from yolact.inference.openvino_engine import OpenVinoEngine, OpenVinoNetwork, convert
from yolact.inference.precision import DTYPES
from yolact.network.backbones import DeformableConv2d
from yolact.network.model import InferenceNetwork, RawPredictions, Yolact


class Engine(Protocol):
    """Normalised images (B, 3, S, S) float32 on the device → raw predictions in float32 there, the caller's to keep."""

    def __call__(self, images: Tensor) -> RawPredictions:
        """Run the network."""

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """Begin to run the network, where an engine can do so beside the caller; what is returned gives the result.

        The result of one run is fetched before the next is begun.
        """


def cache_folder() -> Path:
    """Where compiled code and quantised models are kept: $YOLACT_CACHE, else ~/.cache/yolact."""
    return Path(os.environ.get("YOLACT_CACHE") or Path.home() / ".cache" / "yolact")


def make_engine(
    model: Yolact,
    device: torch.device,
    choice: EngineChoice,
    batch_size: int,
    network: OpenVinoNetwork | None = None,
) -> Engine:
    """The engine of `choice` for batches of exactly `batch_size`, with as many threads as torch has now.

    float32 by "eager" is the model as it is, to the bit. The others work on a copy: channels last, batch norms folded.

    Args:
        model: on `device`, in evaluation mode.
        network: for "openvino", so that it need not be converted again; int8 needs it, from `quantise`.

    Raises:
        ValueError: for int8 without `network`.
    """
    if choice.engine == "openvino":
        if network is None:
            if choice.precision == "int8":
                raise ValueError("precision 'int8' needs `network`: yolact.openvino_engine.quantise makes it")
            network = convert(model)
        return OpenVinoEngine(network, choice.precision, batch_size, model.config.input_size)
    if choice.engine == "compiled":
        return CompiledEngine(model, device, DTYPES[choice.precision])
    return EagerEngine(model, device, DTYPES[choice.precision])


class EagerEngine:
    """The modules as they are, in float32; lower arithmetic by autocast."""

    def __init__(self, model: Yolact, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._exact = dtype == torch.float32
        self._network = _network(model if self._exact else _channels_last(model), device, dtype)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> RawPredictions:
        if not self._exact:
            images = images.contiguous(memory_format=torch.channels_last)
        with _full_float32(self._device):
            return _float32(self._network(images), copy=False)

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """Runs when the result is asked for: torch has no thread to spare beside the caller's."""
        return partial(self, images)


class CompiledEngine:
    """`torch.compile` with the weights frozen into the code; on GPUs a CUDA graph.

    The first call compiles, a minute or so; a later process finds the code under `cache_folder()`.
    """

    def __init__(self, model: Yolact, device: torch.device, dtype: torch.dtype) -> None:
        # read by the compiler when it first compiles; what the user set stays
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
        self._device = device
        self._network = torch.compile(
            _network(_channels_last(model), device, dtype),
            dynamic=False,
            options={"freezing": True, "triton.cudagraphs": device.type == "cuda"},
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> RawPredictions:
        images = images.contiguous(memory_format=torch.channels_last)
        with _full_float32(self._device):
            # the graph writes every call's results into the same memory
            return _float32(self._network(images), copy=self._device.type == "cuda")

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """Runs when the result is asked for, as the eager engine."""
        return partial(self, images)


class _Autocast(nn.Module):
    """A network with its convolutions in `dtype`; what is sensitive to rounding stays in float32."""

    def __init__(self, network: InferenceNetwork, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self._device_type, self._dtype = device_type, dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.autocast(self._device_type, self._dtype):
            outputs: tuple[Tensor, Tensor, Tensor, Tensor] = self.network(images)
        return outputs


def _network(model: Yolact, device: torch.device, dtype: torch.dtype) -> nn.Module:
    network = InferenceNetwork(model)
    return network if dtype == torch.float32 else _Autocast(network, device.type, dtype)


def _channels_last(model: Yolact) -> Yolact:
    return fold_batch_norms(model).to(memory_format=torch.channels_last)


def _float32(outputs: tuple[Tensor, Tensor, Tensor, Tensor], *, copy: bool) -> RawPredictions:
    boxes, classes, coefficients, prototypes = (part.to(torch.float32, copy=copy) for part in outputs)
    return RawPredictions(boxes, classes, coefficients, prototypes.contiguous(), None)


@contextlib.contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    """Keep a GPU from rounding float32 convolutions to TF32, which costs three digits; put back what was set."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def fold_batch_norms(model: Yolact) -> Yolact:
    """A copy of `model`, in evaluation mode, with an identity in the place of every batch norm after a convolution.

    In a module that has a convolution and a batch norm as neighbours, in the order they were added, the one follows the
    other: true of every backbone here, and checked by comparing outputs. Weights differ by float rounding.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(convolution, nn.Conv2d | DeformableConv2d):
                # only `weight` and `bias` are read and replaced, which both kinds have
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var]
                setattr(module, norm_name, nn.Identity())
    return folded
