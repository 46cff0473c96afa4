"""Starts a Ray on this machine whose autoscaler adds nodes as processes, with GPUs that do not exist."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_EMPTY_LISTS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
#: attempts to start the head
_STARTS = 5
_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"


@dataclass(frozen=True)
class GrowingCluster:
    """The cluster's address, and the environment that its commands need."""

    address: str
    environment: Mapping[str, str]
    _head: int
    _configuration: Path

    def nodes_with_gpu(self) -> list[psutil.Process]:
        """The raylet of each node with a GPU."""
        return [
            process
            for process in psutil.Process(self._head).children(recursive=True)
            if (words := _words(process)) and words[0].endswith("/raylet") and any("GPU," in word for word in words)
        ]

    def lose(self, node: psutil.Process) -> None:
        """Kill a node with all its processes, as a spot machine goes that nobody warned."""
        with suppress(psutil.NoSuchProcess):
            for process in [node, *node.children(recursive=True)]:
                process.kill()

    def allow(self, kinds: Mapping[str, Mapping[str, Any]]) -> None:
        """Give the running autoscaler other `available_node_types`; it ends nodes that are too many."""
        text = json.dumps(_configuration(self.address, kinds))  # JSON is YAML
        self._configuration.with_suffix(".new").write_text(text)
        self._configuration.with_suffix(".new").replace(self._configuration)


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def growing_cluster(kinds: Mapping[str, Mapping[str, Any]]) -> Iterator[GrowingCluster]:
    """A head without CPUs and no other node; `kinds` are the autoscaler's `available_node_types` for workers.

    This is what `ray.cluster_utils.AutoscalingCluster` does, but for two things: it leaves other Rays of the machine
    alone, where that class runs `ray stop --force`; and its configuration stands where `ray up` puts one, in a HOME of
    its own. The wheel of Ray lacks the file that the class makes its configuration from.
    """
    from ray._private.services import get_node_ip_address

    # the paths of sockets below it must stay short
    home = Path(tempfile.mkdtemp(prefix="ry", dir="/tmp"))
    address = f"{get_node_ip_address()}:{_free_port()}"
    path = home / "ray_bootstrap_config.yaml"
    path.write_text(json.dumps(_configuration(address, kinds)))
    environment = {
        **os.environ,
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    head = _start_head(_head_command(address, path), environment, home / "head.log")
    try:
        del environment["RAY_OVERRIDE_NODE_ID_FOR_TESTING"], environment["RAY_CLOUD_INSTANCE_ID"]
        yield GrowingCluster(address, environment, head.pid, path)
    finally:
        _end(head)
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _configuration(address: str, kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    head = "ray.head.default"
    provider = {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "gcs_address": address,
    }
    return {
        "cluster_name": "growing",
        "max_workers": sum(kind["max_workers"] for kind in kinds.values()),
        "upscaling_speed": 8.0,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "head_node_type": head,
        "available_node_types": {
            **{name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in kinds.items()},
            head: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        },
        **{name: [] for name in _EMPTY_LISTS},
    }


def _head_command(address: str, config: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--port={address.rpartition(':')[2]}",
        f"--autoscaling-config={config}",
        *("--num-cpus=0", "--include-dashboard=false", "--object-store-memory=200000000"),
        *("--dashboard-agent-listen-port=0", f"--ray-client-server-port={_free_port()}"),
    ]


def _start_head(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A head that runs. Ray gives a start 30 s, which a busy machine may exceed; then it is tried again."""
    for _ in range(_STARTS):
        with open(log, "w") as file:
            head = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        while head.poll() is None:
            if "Ray runtime started" in log.read_text():
                return head
            time.sleep(0.2)
        _end(head)
    raise RuntimeError(f"the head ended: {log.read_text()}")


def _end(head: subprocess.Popen[bytes]) -> None:
    """End the head and all that it started, the nodes of the autoscaler among them."""
    try:
        processes = psutil.Process(head.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        processes = []
    head.terminate()
    _, alive = psutil.wait_procs([psutil.Process(head.pid)] if head.poll() is None else [], timeout=30)
    for process in [*alive, *processes]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    head.wait()
