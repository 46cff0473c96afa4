"""What `import yolact` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import yolact

PUBLIC = {
    "CONFIGS",
    "Detections",
    "Predictor",
    "RawPredictions",
    "TileConfig",
    "Yolact",
    "YolactConfig",
    "YolactWithLoss",
    "build_yolact",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
}


def test_every_public_name_is_there_and_no_other():
    assert set(yolact.__all__) == PUBLIC
    assert all(getattr(yolact, name) is not None for name in PUBLIC)
    assert set(dir(yolact)) >= PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        yolact.predict  # noqa: B018


def test_nothing_happens_at_import():
    code = """
import sys, yolact
assert not {"torch", "ray", "fsspec", "numpy"} & set(sys.modules)
import yolact.inference.predictor, yolact.weights.checkpoint, yolact.training.losses
assert not {"ray", "tyro", "jobs"} & {name for name in sys.modules}
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stderr == b""
