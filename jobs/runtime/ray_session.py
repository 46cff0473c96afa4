"""Being connected to Ray, quietly, for as long as a job runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from jobs.runtime.errors import JobError
from jobs.runtime.telemetry import without_usage_process


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the run as an error does: what is committed stays, the lease is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        # the one exception that Ray lets through while it waits
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        if told:
            raise JobError("stopped by SIGTERM; run the same command again to go on") from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


#: of the processes of a Ray that is started here; cluster/Dockerfile has the same. A network on CPUs trains a quarter
#: faster with them: threads that wait for each other spin for microseconds only, since they share their cores, and
#: memory of one step is kept for the next one instead of being given back and faulted in again, page by page
WORKER_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
}


@dataclass(frozen=True)
class Node:
    """What one alive node offers."""

    cpus: float
    gpus: float


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local one, and leave it as it was found.

    "auto" takes the cluster that is there (RAY_ADDRESS, or one started on this machine) and else starts a local one;
    "local" always starts one; anything else is an address. A Ray that the caller initialised is used as it is.
    """
    # a warning of Ray's about CUDA_VISIBLE_DEVICES on workers without GPUs, meant for Ray's own developers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # of several tasks that fail, the first is reported by the job in its own words
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray's C++ core prints a remark on every pool of actors as an error
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == "local":
            _start_local(quiet)
        elif address == "auto":
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:
                if os.environ.get("RAY_ADDRESS"):
                    raise
                _start_local(quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        # a machine that is too busy for Ray's own time-outs makes it raise the base class
        where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JobError(f"no Ray cluster at {where}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(quiet: Mapping[str, Any]) -> None:
    """Start a Ray that listens on loopback only: a cluster for one user's job is not to be reached from outside.

    Ray replaces a loopback address by the machine's, except where it is told not to make clusters. That switch is read
    when Ray is imported, here, and when its processes start, from the environment.
    """
    import ray
    from ray._private import ray_constants

    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    value, makes_clusters = os.environ.get(switch), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[switch], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        with without_usage_process():
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = makes_clusters
        if value is None:
            del os.environ[switch]
        else:
            os.environ[switch] = value


def alive_nodes() -> list[Node]:
    """What each node of the connected cluster offers."""
    import ray

    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_resources() -> Node:
    """What the whole cluster has that nobody holds at the moment."""
    import ray

    free = ray.available_resources()
    return Node(free.get("CPU", 0.0), free.get("GPU", 0.0))


def is_autoscaling() -> bool:
    """Whether the cluster can grow; Ray's autoscaler reports its node types to the control store."""
    from ray._private.worker import global_worker

    try:
        return global_worker.gcs_client.internal_kv_get(b"__autoscaling_config", b"autoscaler") is not None
    except Exception:
        # an internal of Ray: without it a cluster counts as fixed, and a plan too large for it is refused early
        return False
