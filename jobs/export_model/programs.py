"""A network as ONNX and as a torch.export program, and the check that both compute what the model computes."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from jobs.runtime.errors import JobError, UsageError
from yolact.network.model import OUTPUT_NAMES, InferenceNetwork, Yolact

#: of ONNX: the newest version that PyTorch's exporter writes
OPSET = 23
#: largest difference from the eager outputs, as a share of their largest value
TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)

Run = Callable[[np.ndarray], list[np.ndarray]]


def export_program(model: Yolact) -> torch.export.ExportedProgram:
    """`Yolact.infer` as a graph for any batch size; `model` on the CPU, in evaluation mode."""
    size = model.config.input_size
    with torch.no_grad():
        return torch.export.export(
            InferenceNetwork(model),
            (torch.zeros(2, 3, size, size),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
        )


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> Run:
    """One file with its weights in it; what is given back runs it by ONNX Runtime."""
    try:
        import onnxruntime  # of the extra [onnx]

        # the exporter prints its own steps
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            onnx = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=list(OUTPUT_NAMES),
                verbose=False,
            )
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: pip install 'yolact-ray[onnx]', or use --formats torch") from error
    except torch.onnx.OnnxExporterError as error:
        reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), "no reason given")
        raise UsageError(f"this model has no ONNX form ({reason.strip()}); use --formats torch") from error
    assert onnx is not None
    onnx.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(list(OUTPUT_NAMES), {"images": images})


def write_program(program: torch.export.ExportedProgram, path: Path) -> Run:
    """What `torch.export.load` reads; what is given back runs the file."""
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return run


def check(model: Yolact, run: Run, name: str) -> float:
    """Largest relative difference of `run` from the eager model, over several batch sizes. Raises `JobError`."""
    worst = 0.0
    rng = np.random.default_rng(0)
    for batch in _CHECKED_BATCHES:
        images = rng.normal(size=(batch, 3, model.config.input_size, model.config.input_size)).astype(np.float32)
        with torch.no_grad():
            expected = [output.numpy() for output in InferenceNetwork(model)(torch.from_numpy(images))]
        for output, found, wanted in zip(OUTPUT_NAMES, run(images), expected, strict=True):
            if found.shape != wanted.shape:
                raise JobError(f"{name} gives {output} of shape {found.shape}, the model {wanted.shape}")
            # NaN must not pass
            difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            if not difference <= TOLERANCE:
                raise JobError(f"{name} differs from the model in {output} by {difference:.1e} of its largest value")
            worst = max(worst, difference)
    return worst


def write_anchors(model: Yolact, path: Path) -> None:
    np.save(path, model.anchors.numpy())
