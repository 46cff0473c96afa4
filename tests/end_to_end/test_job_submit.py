"""The way a cluster runs the jobs: a Ray head of its own, `ray job submit` with the working directory uploaded."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.lakes import draw_images, write_shards
from support.models import save_tiny_checkpoint

from jobs.table.read import open_labels, read_labels

REPOSITORY = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


#: what the cluster asks of everyone who talks to it
TOKEN = secrets.token_hex(32)


def clean_environment() -> dict[str, str]:
    """With the token, without what would lead to another cluster or make the package importable past the upload."""
    unwanted = ("RAY_ADDRESS", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


class Head(NamedTuple):
    """Where a cluster takes jobs, and where Ray Client connects."""

    jobs: str
    client: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head that was started from the shell, outside of this process and of the checkout."""
    dashboard, client = free_port(), free_port()
    # short: Ray puts sockets there, whose paths may be a hundred characters long
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        "--num-cpus=3",
        "--node-ip-address=127.0.0.1",
        f"--port={free_port()}",
    ]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=clean_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(address + "/api/version", process)
        yield Head(address, f"ray://127.0.0.1:{client}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, process: subprocess.Popen) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "ray start ended"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {url}")


def submit(head: Head, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(RAY), "job", "submit", "--address", head.jobs, "--working-dir", str(REPOSITORY), "--"]
    # the node has no `python` of ours on its path, as an image would
    command += [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=540, env=clean_environment(), cwd="/")


def test_a_lake_is_labelled(head, tmp_path):
    write_shards(str(tmp_path / "lake"), draw_images(20), shards=2)
    weights = save_tiny_checkpoint(tmp_path)
    output = tmp_path / "out"
    done = submit(
        head, "label", str(tmp_path / "lake"), "--output", str(output), "--weights", str(weights), "--device", "cpu"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    assert open_labels(str(output)).finished
    assert len({image.image_id for image in read_labels(str(output))}) == 20
    # the answer of a command that cannot run is a failed job that says why
    again = submit(head, "label", str(tmp_path / "lake"), "--output", str(output), "--weights", "/nowhere.safetensors")
    assert again.returncode != 0
    assert "/nowhere.safetensors" in again.stdout
    exported = submit(head, "export", str(output), "--output", str(tmp_path / "coco.json"), "--rows-per-task", "5")
    assert exported.returncode == 0, exported.stdout[-4000:]
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 20


def test_a_lake_is_labelled_through_ray_client(head, tmp_path):
    """The driver stands outside of the cluster and sees it through one port, which streams no results."""
    write_shards(str(tmp_path / "lake"), draw_images(20), shards=2)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "jobs", "label", str(tmp_path / "lake"), "--output", str(output)]
    command += ["--weights", str(save_tiny_checkpoint(tmp_path)), "--device", "cpu", "--address", head.client]
    environment = clean_environment() | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, env=environment, cwd="/")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert len({image.image_id for image in read_labels(str(output))}) == 20


def test_a_model_is_trained(head, tmp_path):
    from support.report_pages import rows_with_images
    from support.tables import write_labels

    from jobs.export import run as export
    from jobs.export.options import ExportConfig

    labels = write_labels(tmp_path / "labels", [rows_with_images(tmp_path / "pictures", 8)])
    export(ExportConfig(labels, str(tmp_path / "truth.json")))
    output = tmp_path / "run"
    done = submit(
        head,
        *("train", "--annotations", str(tmp_path / "truth.json"), "--images", str(tmp_path / "pictures")),
        *("--output", str(output), "--init-weights", str(save_tiny_checkpoint(tmp_path)), "--max-steps", "4"),
        *("--batch-size", "2", "--num-workers", "1", "--cpus-per-worker", "1", "--loader-processes", "0"),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    assert (output / "last.safetensors").stat().st_size > 0
