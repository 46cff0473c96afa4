"""Training as a command: the same losses with 1, 2 and 3 workers, and runs that are killed and go on. Minutes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from support.training import draw_plates, read_metrics, tiny_config

from yolact.weights.checkpoint import load_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 40


def command(folder: Path, plates: dict[str, str], output: str, *options: str) -> list[str]:
    values = {
        **plates,
        "output": str(folder / output),
        "config": tiny_config(folder, input_size=96),
        "init_weights": "random",
        "recipe": "nuclei",
        "precision": "float32",
        "max_steps": STEPS,
        "warmup_steps": 5,
        "batch_size": 4,
        "window_size": 0,
        "checkpoint_every": 5,
        "log_every": 1,
        "address": "local",
    }
    flags = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-W", "ignore", "-m", "jobs", "train", *flags, *options]


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return draw_plates(tmp_path_factory.mktemp("plates"), 12, height=96, width=96)


def train(*arguments, **options):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, plates):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, plates, "run")
    return read_metrics(folder / "run")


def assert_same_losses(found, wanted, steps, tolerance=1e-3):
    for step in steps:
        for name in ("class", "box", "mask", "semantic"):
            assert found[step][name] == pytest.approx(wanted[step][name], rel=tolerance), (step, name)


@pytest.fixture
def three_cpus():
    """The address of a Ray that counts three CPUs, whatever the machine has."""
    home = tempfile.mkdtemp(prefix="ray-")  # short, for Ray's sockets, and no other run's cluster
    node = {"num_cpus": 3, "include_dashboard": False, "temp_dir": home}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster.address
    cluster.shutdown()
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("workers", ["2", "3"])  # a batch of 4: even and uneven shares
def test_several_workers_have_the_losses_of_one(tmp_path, plates, undisturbed, three_cpus, workers):
    train(tmp_path, plates, "run", "--num-workers", workers, "--stop-after", "20", "--address", three_cpus)
    assert_same_losses(read_metrics(tmp_path / "run"), undisturbed, range(1, 21))


def wait_for_step(output: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    metrics = output / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


def training_workers(driver: int) -> list[psutil.Process]:
    """The training workers of a driver: processes of the Ray that the driver started."""
    family = psutil.Process(driver).children(recursive=True)
    return [child for child in family if "RayTrainWorker" in " ".join(child.cmdline())]


def assert_sound(output: Path) -> None:
    """Every checkpoint in the output can be read, and the final models too."""
    checkpoints = [path for path in output.glob("checkpoint_*") if path.is_dir()]
    assert checkpoints
    for checkpoint in checkpoints:
        load_checkpoint(checkpoint / "model.safetensors")
        assert json.loads((checkpoint / "scores.json").read_text())["step"] <= STEPS
    for name in ("best", "last"):
        load_checkpoint(output / f"{name}.safetensors")


@pytest.mark.parametrize("step", [7, 23])
def test_a_killed_worker_is_replaced_and_the_curve_goes_on(tmp_path, plates, undisturbed, step):
    process = subprocess.Popen(command(tmp_path, plates, "run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for_step(tmp_path / "run", step, process)
    victims = training_workers(process.pid)
    assert victims
    victims[0].send_signal(signal.SIGKILL)
    printed = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, printed
    # one line of the first start and one of the restart
    assert printed.count("initial weights from") == 2
    found = read_metrics(tmp_path / "run")
    assert sorted(found) == list(range(1, STEPS + 1))
    assert_same_losses(found, undisturbed, range(1, STEPS + 1))
    assert_sound(tmp_path / "run")


@pytest.mark.parametrize(("step", "workers"), [(12, "1"), (31, "2")])
def test_a_killed_driver_goes_on_also_with_other_workers(tmp_path, plates, undisturbed, step, workers):
    process = subprocess.Popen(
        command(tmp_path, plates, "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_step(tmp_path / "run", step, process)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)
    printed = train(tmp_path, plates, "run", "--num-workers", workers)
    assert "going on from step" in printed
    found = read_metrics(tmp_path / "run")
    assert sorted(found) == list(range(1, STEPS + 1))
    assert_same_losses(found, undisturbed, range(1, STEPS + 1))
    assert_sound(tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "yolact: interrupted; run the same command again to go on"),
        (signal.SIGTERM, 1, "yolact: stopped by SIGTERM; run the same command again to go on"),
    ],
)
def test_a_stopped_command_ends_with_one_line(tmp_path, plates, number, code, line):
    process = subprocess.Popen(
        command(tmp_path, plates, "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for_step(tmp_path / "run", 7, process)
    process.send_signal(number)
    errors = process.communicate(timeout=900)[1].decode()
    assert process.returncode == code, errors
    assert errors.strip().splitlines()[-1] == line
    assert "Traceback" not in errors
