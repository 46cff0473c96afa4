"""Write a model for other runtimes: ONNX and a torch.export program, checked against the model itself.

    yolact export-model --output exported --config yolact_resnet50

Writes model.onnx, model.pt2, anchors.npy and model.json, which says what goes in and what comes out. Both programs take
any batch size and give the network's raw predictions. What follows (decoding, NMS, masks) is in
yolact/inference/postprocess.py. Takes a minute or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

    from yolact.network.model import Yolact

#: of ONNX: the newest version that PyTorch's exporter writes
OPSET = 23
#: largest difference from the eager outputs, as a share of their largest value
TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)

Run = Callable[["np.ndarray"], "list[np.ndarray]"]


@dataclass(frozen=True)
class ExportModelConfig:
    """Options of `yolact export-model`."""

    output: str
    """Folder or prefix that gets the files; any fsspec URI."""
    config: str | None = None
    """Name of the model, such as yolact_base; may be left out where the checkpoint carries its own."""
    weights: str | None = None
    """Official .pth or own checkpoint, any fsspec URI; may be left out where the config names a published file."""
    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")
    """onnx writes model.onnx, torch the torch.export program model.pt2."""


def run(config: ExportModelConfig) -> int:
    """Export, check, write, and return the exit code. Raises `UsageError`, and `JobError` where a check fails."""
    import json
    import tempfile

    from jobs import storage
    from jobs.runtime.errors import EXIT_OK
    from jobs.runtime.model_source import resolve_model

    source = resolve_model(config.config, config.weights)
    model = source.load()
    differences = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = export_program(model)
        if "onnx" in config.formats:
            differences["model.onnx"] = check(model, write_onnx(program, folder / "model.onnx"), "model.onnx")
        if "torch" in config.formats:
            differences["model.pt2"] = check(model, write_program(program, folder / "model.pt2"), "model.pt2")
        write_anchors(model, folder / "anchors.npy")
        described = describe(model, differences) | {"weights_sha256": source.sha256}
        (folder / "model.json").write_text(json.dumps(described, indent=2) + "\n")
        # what a reader looks for first comes last
        for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".json"):
            storage.put_atomic(f"{config.output.rstrip('/')}/{file.name}", file.read_bytes())
    for file_name, difference in differences.items():
        print(f"{file_name}  differs from the model by {difference:.1e} of its largest value, at most")
    print(f"written to {config.output}")
    return EXIT_OK


def export_program(model: Yolact) -> torch.export.ExportedProgram:
    """`Yolact.infer` as a graph for any batch size; `model` on the CPU, in evaluation mode."""
    import torch

    from yolact.network.model import InferenceNetwork

    size = model.config.input_size
    with torch.no_grad():
        return torch.export.export(
            InferenceNetwork(model),
            (torch.zeros(2, 3, size, size),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
        )


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> Run:
    """One file with its weights in it; what is given back runs it by ONNX Runtime."""
    import contextlib
    import io
    import warnings

    import torch

    from jobs.runtime.errors import UsageError
    from yolact.network.model import OUTPUT_NAMES

    try:
        import onnxruntime

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
    import torch

    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return run


def check(model: Yolact, run: Run, name: str) -> float:
    """Largest relative difference of `run` from the eager model, over several batch sizes. Raises `JobError`."""
    import numpy as np
    import torch

    from jobs.runtime.errors import JobError
    from yolact.network.model import OUTPUT_NAMES, InferenceNetwork

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
    import numpy as np

    np.save(path, model.anchors.numpy())


def describe(model: Yolact, differences: Mapping[str, float]) -> dict[str, Any]:
    """model.json: what goes in, what comes out, and how far each file is from the model."""
    config = model.config
    size = config.input_size
    anchors, classes = len(model.anchors), config.num_classes
    return {
        "model": config.name,
        "config": config.to_dict(),
        "class_names": list(config.class_names),
        "input": {"images": ["batch", 3, size, size], "dtype": "float32", "values": "as yolact.preprocess makes them"},
        "outputs": {
            "box_deltas": ["batch", anchors, 4],
            "class_logits": ["batch", anchors, classes + 1],
            "mask_coefficients": ["batch", anchors, config.num_prototypes],
            "prototypes": ["batch", config.num_prototypes, "h", "w"],
        },
        "anchors": "anchors.npy: (anchors, 4) float32, cx, cy, w, h relative to the image",
        "onnx_opset": OPSET if "model.onnx" in differences else None,
        "largest_relative_difference": dict(differences),
    }
