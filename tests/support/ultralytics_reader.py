"""Reads a YOLO export with Ultralytics' own data set, without its downloads and its settings in HOME."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def load_yolo(export: Path, settings: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Any]:
    """What `data.yaml` says, and the `YOLODataset` of its images. `settings` is a folder for Ultralytics' own files."""
    for name, value in {
        "YOLO_CONFIG_DIR": str(settings),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }.items():
        monkeypatch.setenv(name, value)
    utils = pytest.importorskip("ultralytics.data.utils", reason="ultralytics is not installed (tests/readers.txt)")
    dataset = pytest.importorskip("ultralytics.data.dataset")
    monkeypatch.setattr(utils, "check_font", lambda name: None)  # it would fetch a font for its plots
    data = utils.check_det_dataset(str(export / "data.yaml"), autodownload=False)
    return data, dataset.YOLODataset(img_path=data["train"], data=data, task="segment", augment=False, imgsz=160)
