"""Nothing is sent anywhere: runs as users start them, with every process watched."""

from __future__ import annotations

import sys

import pytest
from support.lakes import draw_pictures, write_files
from support.models import save_tiny_checkpoint
from support.network import watch
from support.training import draw_plates, tiny_config

COMMAND = [sys.executable, "-m", "jobs"]


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_labelling_run_calls_nobody(tmp_path, precision):
    if precision == "int8":
        pytest.importorskip("openvino")
    write_files(str(tmp_path / "lake"), draw_pictures(6))
    weights = str(save_tiny_checkpoint(tmp_path))
    arguments = ["label", str(tmp_path / "lake"), "--output", str(tmp_path / "out"), "--weights", weights]
    watched = watch([*COMMAND, *arguments, "--precision", precision, "--address", "local"], tmp_path / "watched")
    check(watched)
    assert (tmp_path / "out/_SUCCESS").exists()


def test_a_training_run_calls_nobody(tmp_path):
    plates = draw_plates(tmp_path / "plates", 4)
    arguments = [
        "train",
        "--config",
        tiny_config(tmp_path),
        "--output",
        str(tmp_path / "out"),
        "--init-weights",
        "random",
    ]
    arguments += ["--annotations", plates["annotations"], "--images", plates["images"], "--max-steps", "2"]
    arguments += ["--batch-size", "2", "--num-workers", "1", "--address", "local"]
    check(watch([*COMMAND, *arguments], tmp_path / "watched"))


def check(watched):
    assert watched.code == 0, watched.printed
    # the driver, Ray's own processes and its workers
    assert watched.processes > 3
    assert watched.calls == []
    if watched.kernel_calls is not None:
        assert watched.kernel_calls == []
