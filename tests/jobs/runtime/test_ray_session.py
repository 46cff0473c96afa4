"""Which Ray a command takes, how long it waits for one, and what a private Ray leaves behind. Real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from jobs.runtime.errors import EXIT_FAILED, JobError
from jobs.runtime.interrupts import watchdog
from jobs.runtime.ray_session import cluster_address

#: starts a Ray as a command does, works in it until the file in argv[1] appears, and says which Ray it was
SESSION = """
import json, os, pathlib, sys, time
from jobs.runtime.errors import exit_code_of
from jobs.runtime.ray_session import ray_session

def session():
    with ray_session("auto"):
        import ray
        from ray._private.worker import _global_node
        node = ray.get_runtime_context().get_node_id()
        print("STARTED " + json.dumps([_global_node.address, node]), flush=True)
        end = pathlib.Path(sys.argv[1])
        while not end.exists():
            assert ray.get(ray.remote(lambda: os.getpid()).options(num_cpus=0.5).remote()) != os.getpid()
            time.sleep(0.2)
    print("ENDED", flush=True)
    return 0

sys.exit(exit_code_of(session))
"""


def command(end: Path, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SESSION, str(end)],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(process: subprocess.Popen[str]) -> list[str]:
    """The address and the node of the Ray that the process has; waits until it has one."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("STARTED "):
            return json.loads(line.removeprefix("STARTED "))
    raise AssertionError(process.communicate()[1])


def ended(process: subprocess.Popen[str], end: Path) -> None:
    end.touch()
    printed, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert "ENDED" in printed


def check_two_commands(folder: Path, delay: float, first_ends_first: bool) -> None:
    first = command(folder / "first")
    address = started(first) if delay else None
    time.sleep(delay)
    second = command(folder / "second")
    address = address or started(first)
    other = started(second)
    assert address != other
    order = [(first, folder / "first"), (second, folder / "second")]
    for process, end in order if first_ends_first else order[::-1]:
        ended(process, end)


def test_a_second_command_has_its_own_ray_and_outlives_the_first(tmp_path):
    check_two_commands(tmp_path, 1, first_ends_first=True)


@pytest.mark.slow
@pytest.mark.parametrize("first_ends_first", [True, False])
@pytest.mark.parametrize("delay", [0, 5, 14, 25])
def test_two_commands_at_any_distance_work_each_in_its_own_ray(tmp_path, delay, first_ends_first):
    check_two_commands(tmp_path, delay, first_ends_first)


@pytest.mark.parametrize("home", ["/nowhere/at/all", "/proc", "/dev/null"])
def test_a_home_that_is_absent_or_cannot_be_written_is_no_obstacle(tmp_path, home):
    process = command(tmp_path / "end", HOME=home)
    started(process)
    ended(process, tmp_path / "end")


def test_a_private_ray_leaves_home_and_environment_as_they_were(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    code = SESSION.replace(
        "sys.exit(exit_code_of(session))",
        "before = dict(os.environ); exit_code_of(session)\n"
        "changed = {n for n in {*before, *os.environ} if before.get(n) != os.environ.get(n)}\n"
        "parts = ('AUTH', 'CLUSTER', 'ADDRESS', 'GCS')\n"
        "print('CHANGED', sorted(n for n in changed if any(part in n for part in parts)))",
    )
    (tmp_path / "end").touch()
    kept = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "end")],
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert "CHANGED []" in done.stdout, done.stderr
    assert not (home / ".ray").exists()


def test_what_looks_for_the_cluster_of_the_machine_finds_the_private_ray(tmp_path):
    """Ray Train asks that cluster whether the training lives. It frees the workers of one that is unknown there."""
    other = command(tmp_path / "end")
    started(other)
    code = """
from jobs.runtime.ray_session import ray_session
with ray_session("local"):
    import ray
    from ray._private.services import canonicalize_bootstrap_address_or_die
    found = ray.get(ray.remote(lambda: canonicalize_bootstrap_address_or_die(None)).remote())
    print("FOUND", found, ray.get_runtime_context().gcs_address)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    ended(other, tmp_path / "end")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    _, found, own = line.split()
    assert found == own


def test_auto_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    assert cluster_address("auto") == "10.1.2.3:6379"
    assert cluster_address("local") is None
    assert cluster_address("ray://head:10001") == "ray://head:10001"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address("auto") is None


@pytest.fixture
def ray_folder(tmp_path, monkeypatch):
    """Where `ray start` leaves its address file for this test."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


def test_auto_is_else_the_address_that_ray_start_left(ray_folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (ray_folder / "ray_current_cluster").write_text(address)
        assert cluster_address("auto") == address


def test_auto_is_a_private_ray_where_the_one_of_the_file_is_gone(ray_folder, caplog):
    assert cluster_address("auto") is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    (ray_folder / "ray_current_cluster").write_text(address)
    assert cluster_address("auto") is None
    assert f"no Ray answers at {address}" in caplog.text


IN_CLUSTER = """
import sys
from jobs.runtime.errors import exit_code_of
from jobs.runtime.ray_session import ray_session
def session():
    with ray_session(sys.argv[1]):
        import ray
        @ray.remote(num_cpus=1)
        class Actor:
            def answer(self):
                return "ANSWER"
        print(ray.get(Actor.remote().answer.remote(), timeout=120))
    return 0
sys.exit(exit_code_of(session))
"""


def cluster_answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@pytest.mark.parametrize("token_of_cluster", [None, "1" * 64])
def test_a_token_of_the_user_goes_only_to_a_cluster_that_asks_for_one(tmp_path, token_of_cluster):
    """The cluster is that of `ray start`, with and without a token; the user has one in HOME in both cases."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ray_command = Path(sys.executable).with_name("ray")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = {**kept, "RAY_TMPDIR": folder, "HOME": str(tmp_path)}
        (tmp_path / ".ray").mkdir()
        token = {"RAY_AUTH_MODE": "disabled"}
        if token_of_cluster is not None:
            (tmp_path / ".ray" / "auth_token").write_text(token_of_cluster)
            token = {"RAY_AUTH_MODE": "token"}
        start = [ray_command, "start", "--head", "--block", "--num-cpus=1", "--port=0"]
        start += ["--include-dashboard=false", "--disable-usage-stats"]
        cluster = subprocess.Popen(start, env={**environment, **token}, stdout=subprocess.DEVNULL)
        try:
            written = Path(folder) / "ray" / "ray_current_cluster"
            while not written.exists() or not cluster_answers(written.read_text()):
                assert cluster.poll() is None, "ray start ended"
                time.sleep(0.2)
            (tmp_path / ".ray" / "auth_token").write_text("1" * 64)
            for asked in (written.read_text(), "auto"):
                command = [sys.executable, "-W", "ignore", "-c", IN_CLUSTER, asked]
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                assert (done.returncode, done.stdout.strip()) == (0, "ANSWER"), done.stderr
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait()


#: twice as many tasks at once as there are CPUs, and a pause, and as many tasks again; says which workers did them
IDLE_WORKERS = """
import os, sys, time
from pathlib import Path
from jobs.runtime.ray_session import ray_session

def meet(folder, tasks):
    Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < tasks:
        time.sleep(0.05)
    return os.getpid()

with ray_session("local"):
    import ray
    tasks = 2 * int(ray.cluster_resources()["CPU"])
    for number in range(2):
        folder = Path(sys.argv[1], str(number))
        folder.mkdir()
        task = ray.remote(meet).options(num_cpus=0.25)
        print("PIDS", *sorted(ray.get([task.remote(str(folder), tasks) for _ in range(tasks)])))
        time.sleep(3)
"""


def test_a_worker_that_is_idle_for_a_while_serves_the_next_task(tmp_path):
    """By default Ray ends it after a second if there are more workers than CPUs, as decoders beside the model are."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IDLE_WORKERS, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = [line for line in done.stdout.splitlines() if line.startswith("PIDS ")]
    assert first == second


#: kills a worker, waits until Ray has told its drivers of that death, and says so
LOST_WORKER = """
import os, signal, time
from jobs.runtime.ray_session import ray_session
with ray_session("local"):
    import ray
    worker = ray._private.worker.global_worker
    errors = ray._raylet.GcsErrorSubscriber(worker_id=os.urandom(28), address=worker.gcs_client.address)
    errors.subscribe()
    try:
        ray.get(ray.remote(lambda: os.kill(os.getpid(), signal.SIGKILL)).options(max_retries=0).remote())
    except ray.exceptions.WorkerCrashedError:
        while "died" not in errors.poll()[1]["error_message"]:
            pass
        time.sleep(2)
        print("LOST")
"""


def test_what_ray_tells_of_lost_workers_stays_off_the_terminal():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOST_WORKER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert (done.returncode, done.stdout) == (0, "LOST\n")


CONNECT = """
import sys, time
from jobs.runtime.errors import exit_code_of
from jobs.runtime.ray_session import ray_session
def session():
    with ray_session(sys.argv[1]):
        pass
    return 0
begin = time.monotonic()
code = exit_code_of(session)
print("SECONDS", time.monotonic() - begin)
sys.exit(code)
"""


@pytest.mark.parametrize("silent", [False, True])
def test_an_address_without_a_ray_ends_in_one_line_and_soon(silent):
    server = socket.create_server(("127.0.0.1", 0), backlog=16)
    address = f"127.0.0.1:{server.getsockname()[1]}"
    if not silent:
        server.close()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONNECT, address], capture_output=True, text=True, timeout=500
    )
    server.close()
    assert done.returncode == EXIT_FAILED, done.stderr
    *others, line = done.stderr.splitlines()
    assert line.startswith(f"yolact: no Ray cluster at {address}: ")
    # Ray's C++ client has a log of its own, of every attempt
    assert all("gcs_client.cc" in other or "rpc_client.h" in other for other in others if other)
    assert silent or not others
    # the old limits let it hang for 13 minutes and more; imports on a busy machine are part of these seconds
    assert float(done.stdout.split("SECONDS ")[1]) < 240


def test_the_watchdog_interrupts_what_returns_to_python():
    # a shell starts its background jobs with SIGINT ignored, and so with nothing that could be interrupted
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_the_watchdog()
    finally:
        signal.signal(signal.SIGINT, before)


def check_the_watchdog() -> None:
    def wait_for_ever() -> None:
        while True:
            time.sleep(0.01)

    with (
        pytest.raises(JobError, match="did not start within"),
        watchdog("Ray at 10.1.2.3", seconds=0.1),
    ):
        wait_for_ever()
    with watchdog("Ray", seconds=1000):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog" and thread.is_alive()]


def test_the_watchdog_ends_a_process_that_hangs_below_python():
    code = (
        "import threading\nfrom jobs.runtime.interrupts import watchdog\n"
        # a lock in C that nobody releases; interrupting the main thread does not wake it
        "with watchdog('Ray at 10.1.2.3', seconds=0.1, grace=0.1):\n"
        "    import ctypes; ctypes.CDLL(None).pause()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == EXIT_FAILED
    (line,) = done.stderr.splitlines()
    assert line.startswith("yolact: Ray at 10.1.2.3 did not start within 0.1 s")
