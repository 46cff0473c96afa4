"""Exports a model, checks each file against the model itself, and writes them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import storage
from jobs.export_model.options import ExportModelConfig
from jobs.export_model.programs import OPSET, check, export_program, write_anchors, write_onnx, write_program
from jobs.runtime.model_source import resolve_model
from yolact.network.model import Yolact


def export_model(config: ExportModelConfig) -> dict[str, float]:
    """Write the files; returns how far each one is from the model, as `check` gives it.

    Raises `UsageError`, and `JobError` where a check fails.
    """
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
    return differences


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
