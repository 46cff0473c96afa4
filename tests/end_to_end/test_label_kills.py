"""`yolact label` as a process of its own that is killed, told to stop, or meets an image that kills its decoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, write_files
from support.models import save_tiny_checkpoint

FAULTS = Path(__file__).resolve().parent.parent / "support" / "faults"


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write_files(str(folder / "lake"), draw_images(24))
    save_tiny_checkpoint(folder)
    return folder


def start(lake: Path, output: Path, **faults: str) -> subprocess.Popen[str]:
    """The command on `lake`, in units of 2 and parts of 8 images."""
    sizes = ["--precision", "float32", "--images-per-unit", "2", "--images-per-part", "8", "--address", "local"]
    return subprocess.Popen(
        [
            sys.executable, "-m", "jobs", "label", str(lake / "lake"), "--output", str(output),
            "--weights", str(lake / "tiny-0.safetensors"), *sizes,
        ],
        env={**os.environ, "PYTHONPATH": str(FAULTS), "RAY_worker_niceness": "0", **faults},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def rows(output: Path) -> list[dict]:
    return pq.read_table(output / "labels").to_pylist()


@pytest.fixture(scope="module")
def undisturbed(lake: Path) -> list[dict]:
    code, _, err = finish(start(lake, lake / "undisturbed"))
    assert code == 0, err
    assert "Traceback" not in err
    return rows(lake / "undisturbed")


def wait_for_units(output: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 400
    while len(list(output.glob("_state/staging/*/*.parquet"))) + 4 * len(list(output.glob("labels/*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("blow", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_a_driver_that_is_stopped_is_resumed_to_the_same_rows(lake, undisturbed, tmp_path, blow):
    process = start(lake, tmp_path / "out", YOLACT_TEST_SLOW="0.5")
    wait_for_units(tmp_path / "out", process, 5)
    struck = time.monotonic()
    process.send_signal(blow)
    code, _, err = finish(process)
    assert not (tmp_path / "out/_SUCCESS").exists()
    if blow == signal.SIGTERM:
        assert time.monotonic() - struck < 30
        assert code == 1
        assert err.splitlines()[-1] == "yolact: stopped by SIGTERM; run the same command again to go on"
        assert "Traceback" not in err
    published = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/labels/*.parquet")}
    code, out, err = finish(start(lake, tmp_path / "out"))
    assert code == 0, err
    assert rows(tmp_path / "out") == undisturbed
    assert "this run   24 images" not in out
    for name, modified in published.items():
        assert (tmp_path / "out/labels" / name).stat().st_mtime_ns == modified
    assert not list(tmp_path.glob("out/_state/staging/**/*.parquet"))


@pytest.mark.faults
def test_an_image_that_kills_its_decoder_becomes_a_row(lake, undisturbed, tmp_path):
    poison = "POISON-a5c1"
    for path in (lake / "lake").iterdir():
        (tmp_path / "lake").mkdir(exist_ok=True)
        (tmp_path / "lake" / path.name).write_bytes(path.read_bytes())
    # bytes behind the end of a JPEG do not matter to a decoder that lives
    victim = tmp_path / "lake" / "picture-0005.jpg"
    victim.write_bytes(victim.read_bytes() + poison.encode())
    (tmp_path / "tiny-0.safetensors").write_bytes((lake / "tiny-0.safetensors").read_bytes())
    code, out, err = finish(start(tmp_path, tmp_path / "out", YOLACT_TEST_POISON=poison))
    assert code == 3, err
    assert "1 failed: 1 undecodable" in out
    for row, expected in zip(rows(tmp_path / "out"), undisturbed, strict=True):
        if row["image_id"].endswith(victim.name):
            assert (row["status"], row["error"]) == ("undecodable", "the image killed its decoder process")
        else:
            same = ("status", "error", "height", "width", "instances")
            assert [row[name] for name in same] == [expected[name] for name in same]
