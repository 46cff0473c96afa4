"""The options of `yolact export-model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
