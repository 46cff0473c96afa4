"""OpenVINO as engine for CPUs, and int8 by post-training quantisation (NNCF): the extra [openvino].

Shapes: B images, S the network input's side.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolact.images.network_input import network_input
from yolact.images.prepare import PreparedImage
from yolact.inference.engine_choice import Precision
from yolact.network.model import InferenceNetwork, RawPredictions, Yolact

if TYPE_CHECKING:
    import openvino

_XML, _WEIGHTS = "model.xml", "model.bin"

#: the package by which OpenVINO and NNCF report every import and conversion to an analytics host
_TELEMETRY = "openvino_telemetry"


def import_silently(name: str) -> Any:
    """Import `openvino` or `nncf` without their telemetry; every use of the two goes through here.

    Both do without it where its package is missing, so this process is told that it is. Their own switch is a file in
    the user's home folder, or a variable that says that this is CI; both would say something untrue elsewhere. Sending
    also forks a process that has many threads, and the child can hang for ever. A program that has imported the
    telemetry package before has made its own choice.
    """
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    return importlib.import_module(name)


@dataclass(frozen=True)
class OpenVinoNetwork:
    """A network as OpenVINO's own description and weights, in float32 or int8, for any batch size."""

    xml: bytes
    weights: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.xml + self.weights).hexdigest()

    def to_bytes(self) -> bytes:
        """One file: a zip of the two, not compressed."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo(_XML), self.xml)
            archive.writestr(zipfile.ZipInfo(_WEIGHTS), self.weights)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> OpenVinoNetwork:
        """Raises ValueError for anything that `to_bytes` did not write."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return cls(archive.read(_XML), archive.read(_WEIGHTS))
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError("not a network that this project wrote") from error


class OpenVinoEngine:
    """A network compiled for one batch size. Uses as many threads as torch has when the engine is made.

    With int8, OpenVINO chooses the precision of layers that are not quantised. Other precisions hold for every layer.

    Args:
        network: for "int8" from `quantise`, else from `convert`.
        input_size: S.
    """

    def __init__(self, network: OpenVinoNetwork, precision: Precision, batch_size: int, input_size: int) -> None:
        core = import_silently("openvino").Core()
        graph = core.read_model(network.xml, network.weights)
        graph.reshape([batch_size, 3, input_size, input_size])
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Ray and the system decide which cores a process uses
            "ENABLE_CPU_PINNING": False,
        }
        if precision != "int8":
            options["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
        self._request = core.compile_model(graph, "CPU", options).create_infer_request()
        self._pixels: np.ndarray | None = None

    def __call__(self, images: Tensor) -> RawPredictions:
        """(B, 3, S, S) float32 on the CPU, B as the engine was made for."""
        return self.start(images)()

    def start(self, images: Tensor) -> Callable[[], RawPredictions]:
        """Run in OpenVINO's own threads; the caller goes on until it asks for the result."""
        # the last caller may have failed before it fetched its result: that run must end first
        self._request.wait()
        # a reference is kept, because OpenVINO reads the array while the network runs
        self._pixels = images.contiguous().numpy()
        self._request.start_async([self._pixels], share_inputs=True)
        return self._result

    def _result(self) -> RawPredictions:
        self._request.wait()
        # copied, because the next run writes into the same memory
        boxes, classes, coefficients, prototypes = (
            torch.from_numpy(part.data.copy()) for part in self._request.output_tensors
        )
        return RawPredictions(boxes, classes, coefficients, prototypes, None)


def convert(model: Yolact) -> OpenVinoNetwork:
    """The network of a model on the CPU, in float32. Takes seconds."""
    return _serialised(_convert(model))


def _convert(model: Yolact) -> openvino.Model:
    openvino = import_silently("openvino")
    size = model.config.input_size
    example = torch.zeros(1, 3, size, size)
    with warnings.catch_warnings(), torch.no_grad():
        # the converter traces the model, and tracing warns of every shape that is read
        warnings.simplefilter("ignore")
        return openvino.convert_model(InferenceNetwork(model), example_input=example, input=[-1, 3, size, size])


def quantise(model: Yolact, images: Sequence[PreparedImage]) -> OpenVinoNetwork:
    """int8 weights and activations, with ranges measured on `images` (a few dozen of the kind that will come).

    Args:
        model: on the CPU, in evaluation mode.
        images: what `Predictor.prepare` gives, at least one.

    Raises:
        ValueError: without images.
    """
    if not images:
        raise ValueError("int8 needs images to calibrate on, and there are none")
    inputs = [network_input(image, model.config)[None].numpy() for image in images]
    with _quiet_nncf() as nncf:
        quantised = nncf.quantize(
            _convert(model),
            nncf.Dataset(inputs),
            # symmetric weights, asymmetric activations: for networks with other activations than ReLU
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
        )
    return _serialised(quantised)


def _serialised(graph: openvino.Model) -> OpenVinoNetwork:
    openvino = import_silently("openvino")
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / _XML
        openvino.serialize(graph, xml)
        return OpenVinoNetwork(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without its progress bars and log lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nncf = import_silently("nncf")
        nncf.set_log_level(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield nncf
