"""Runs the network by the chosen engine and precision, behind one call: images → raw predictions in float32.

Shapes: B images, S the network input's side.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolact.inference.engine_choice import EngineChoice
from yolact.inference.openvino_engine import OpenVinoEngine, OpenVinoNetwork, convert
from yolact.inference.precision import DTYPES, full_float32
from yolact.network.backbones import DeformableConv2d
from yolact.network.model import InferenceNetwork, RawPredictions, Yolact


class Engine(Protocol):
    """Normalised images (B, 3, S, S) float32 on the device → raw predictions, float32, on the same device.

    A later call does not overwrite the result of an earlier one.
    """

    def __call__(self, images: Tensor) -> RawPredictions:
        """Run the network."""

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """Begin to run the network and return at once; calling what is returned waits for the result.

        An engine without threads of its own runs only when the result is asked for. Fetch the result of one run
        before the next run begins.
        """


def cache_folder() -> Path:
    """Where compiled code and converted networks are kept: $YOLACT_CACHE, else ~/.cache/yolact."""
    return Path(os.environ.get("YOLACT_CACHE") or Path.home() / ".cache" / "yolact")


def make_engine(
    model: Yolact,
    device: torch.device,
    choice: EngineChoice,
    batch_size: int,
    network: OpenVinoNetwork | None = None,
) -> Engine:
    """The engine of `choice` for batches of exactly `batch_size`, with as many threads as torch has now.

    float32 by "eager" runs the model itself, to the bit. All others run a copy with channels last and folded batch
    norms.

    Args:
        model: on `device`, in evaluation mode.
        network: for "openvino": the model, converted before. int8 needs it, from `quantise`; other precisions
            convert the model where it is None.

    Raises:
        ValueError: for int8 without `network`.
    """
    if choice.engine == "openvino":
        if network is None:
            if choice.precision == "int8":
                raise ValueError("precision 'int8' needs `network`: yolact.inference.openvino_engine.quantise makes it")
            network = convert(model)
        return OpenVinoEngine(network, choice.precision, batch_size, model.config.input_size)
    if choice.engine == "compiled":
        return CompiledEngine(model, device, DTYPES[choice.precision])
    return EagerEngine(model, device, DTYPES[choice.precision])


class EagerEngine:
    """PyTorch's modules: float32 as they are, lower precisions by autocast."""

    def __init__(self, model: Yolact, device: torch.device, dtype: torch.dtype) -> None:
        self._exact = dtype == torch.float32
        self._network = _network(model if self._exact else _channels_last(model), device, dtype)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> RawPredictions:
        if not self._exact:
            images = images.contiguous(memory_format=torch.channels_last)
        with full_float32():
            return _float32(self._network(images), copy=False)

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """On a GPU it begins at once; on a CPU it runs when the result is asked for, in the caller's thread."""
        return _started(self, images)


class CompiledEngine:
    """`torch.compile` with the weights frozen into the code; on GPUs a CUDA graph.

    The first call compiles, which takes a minute or so. A later process loads the code from `cache_folder()`.
    """

    def __init__(self, model: Yolact, device: torch.device, dtype: torch.dtype) -> None:
        # the compiler reads this when it first compiles; a value that the user has set stays
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
        with full_float32():
            # a CUDA graph writes the results of every call into the same memory
            return _float32(self._network(images), copy=self._device.type == "cuda")

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """On a GPU it begins at once; on a CPU it runs when the result is asked for, in the caller's thread."""
        return _started(self, images)


def _started(engine: Engine, images: Tensor) -> Callable[[], RawPredictions]:
    if images.device.type == "cpu":
        return partial(engine, images)
    raw = engine(images)
    return lambda: raw


class _Autocast(nn.Module):
    """A network with its convolutions in `dtype`; autocast keeps operations that rounding would harm in float32."""

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


def fold_batch_norms(model: Yolact) -> Yolact:
    """A copy of `model` in evaluation mode, each batch norm multiplied into the convolution before it.

    An identity takes the batch norm's place. A batch norm follows a convolution if it was added to the same module
    right after it: this holds for every backbone here, and tests compare the outputs. Outputs differ by float rounding.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(convolution, nn.Conv2d | DeformableConv2d):
                # `fuse_conv_bn_eval` reads and replaces `weight` and `bias` only, and both kinds have them
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var]
                setattr(module, norm_name, nn.Identity())
    return folded
