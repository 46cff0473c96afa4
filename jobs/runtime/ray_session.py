"""Connects a job to Ray: finds the cluster or starts a private Ray, limits the time of the start, and cleans up."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import ray_constants, services, worker
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.utils import read_ray_address
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from jobs.runtime.errors import JobError
from jobs.runtime.interrupts import watchdog

log = logging.getLogger(__name__)

#: seconds within which the address of a cluster must accept a connection
_ANSWER_SECONDS = 5.0
#: Ray's own limits while it connects: attempts, and seconds of each one. Its defaults allow 20 rounds of 41 s
_CONNECT_LIMITS = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "10"}
#: attempts to start a private Ray. Ray gives its processes 30 s, which a busy machine may exceed
_STARTS = 2
#: the variable of Ray's C++ core that holds its log level, ray::RayLog::severity_threshold_, and the level FATAL
_LEVEL_OF_CORE = "_ZN3ray6RayLog19severity_threshold_E"
_FATAL = 3

#: environment for the processes of a private Ray; cluster/Dockerfile sets the same. A network on CPUs trains a quarter
#: faster with the first four. Waiting threads spin only for microseconds, since threads share their cores. The
#: allocator keeps the memory of one step for the next one. By default it returns the memory to the system, and every
#: page costs a fault again. The last one keeps idle workers for ten minutes. By default Ray ends a worker that is idle
#: for a second, if there are more workers than CPUs, as decoders beside model actors are. The next task then waits for
#: a new process
WORKER_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a private Ray; at the end disconnect, or stop the private Ray.

    `address` is "auto" (see `cluster_address`), "local" for a private Ray, or the address of a cluster. A Ray that
    the caller initialised is used as it is and left running. Raises `JobError` where no Ray can be had.
    """
    # switches off a warning about CUDA_VISIBLE_DEVICES on workers without GPUs, which users cannot act on
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # the job itself reports the first failed task; Ray would print the others
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray's C++ core logs a harmless remark about every pool of actors as an error
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        yield
        return
    _quieten_core(ray._raylet.__file__)
    cluster = cluster_address(address)
    where = cluster or "this machine"
    with _without_lines_of_ray(), _changed_environment() as environment:
        try:
            with watchdog(f"Ray at {where}"):
                if cluster is None:
                    _start_private(environment)
                else:
                    _connect(cluster, environment)
        except JobError:
            ray.shutdown()
            raise
        except Exception as error:
            # Ray raises a plain Exception where the machine is too busy for Ray's own time limits
            ray.shutdown()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise JobError(f"no Ray cluster at {where}: {reason}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _quieten_core(library: str) -> None:
    """Keep a line of Ray's C++ core off the terminal: the line says that RAY_BACKEND_LOG_LEVEL was read.

    `library` is the file of the core, which is loaded already.

    The core prints it before that level holds, and has no switch for it. So the level is set in the core's own variable
    first. A Ray without that variable prints the line, and nothing else changes. Where the user chose another level,
    the line is wanted.
    """
    if os.environ["RAY_BACKEND_LOG_LEVEL"].lower() != "fatal":
        return
    with contextlib.suppress(OSError, ValueError):
        ctypes.c_int.in_dll(ctypes.CDLL(library), _LEVEL_OF_CORE).value = _FATAL


@contextmanager
def _without_lines_of_ray() -> Iterator[None]:
    """Within this context Ray prints nothing on the terminal about lost nodes, dead workers and full disks.

    `log_to_driver=False` stops what the workers print. Ray's errors take another way: a thread of the driver prints
    each of them on stdout, in colour, and Ray has no option against it. So its switch is set, which Ray itself uses
    while a debugger has the terminal. The errors stay in Ray's logs on the head.
    """
    before = worker._worker_logs_enabled
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


def cluster_address(address: str) -> str | None:
    """The cluster that `address` names, or None if a private Ray must be started.

    "auto" is RAY_ADDRESS, else the address that `ray start` wrote on this machine, if something answers there. Private
    Rays of other commands write no such file, so this never joins them. Ray's own "auto" searches the list of processes
    instead, and may join a private Ray that is about to end.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local":
        return None
    if address != "auto":
        return address
    written = _address_of_ray_start()
    if not written:
        return None
    if not _answers(written):
        log.warning(
            "no Ray answers at %s, which ray start left as this machine's address: starting a private one", written
        )
        return None
    return written


def _address_of_ray_start() -> str | None:
    """The address of the cluster that `ray start` began on this machine, as its file says."""
    written: str | None = read_ray_address()
    return written


def _answers(address: str) -> bool:
    """Whether something accepts a connection at `host:port` or `ray://host:port` within a few seconds."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return True  # Ray's own message explains the fault of such an address
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def _changed_environment() -> Iterator[_Environment]:
    """An environment whose changes end with the session, so that the next one starts from the user's own."""
    environment = _Environment()
    try:
        yield environment
    finally:
        environment.restore()


class _Environment:
    """Environment variables that Ray reads, and what they were before."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def set(self, values: Mapping[str, str]) -> None:
        """Set variables for this process, for the processes that it starts, and for Ray's library in this process."""
        for name, value in values.items():
            self.remember(name)
            os.environ[name] = value
        self._reload()

    def remember(self, name: str) -> None:
        """Note the present value of a variable that Ray may set, so that `restore` brings it back."""
        self._before.setdefault(name, os.environ.get(name))

    def restore(self) -> None:
        """Set every changed variable to what it was."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self._before:
            self._reload()
        self._before = {}

    @staticmethod
    def _reload() -> None:
        # Ray's library reads its settings and the token once, and keeps them
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


_QUIET = {"logging_level": logging.ERROR, "log_to_driver": False}


def _connect(address: str, environment: _Environment) -> None:
    """Connect to a cluster. Raises within seconds where nothing answers, and within a minute where it is not Ray."""
    if not _answers(address):
        raise ConnectionError(f"nothing answers within {_ANSWER_SECONDS:g} s")
    environment.set({name: os.environ.get(name, value) for name, value in _CONNECT_LIMITS.items()})
    if address == _address_of_ray_start() and _asks_for_token(address):
        # `ray start` takes this user's token, where there is one
        environment.remember("RAY_AUTH_MODE")
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    ray.init(address=address, **_QUIET)


def _asks_for_token(address: str) -> bool:
    """Whether the cluster at `host:port` refuses a process without a token.

    A driver with a token refuses all that an open cluster asks of it. The cluster then takes the driver for dead and
    ends its actors.
    """
    try:
        ray._raylet.GcsClient(address=address).internal_kv_exists(b"", namespace=None, timeout=_ANSWER_SECONDS)
    except ray.exceptions.AuthenticationError:
        return True
    except Exception:  # ray.init says what is wrong there
        return False
    return False


def _start_private(environment: _Environment) -> None:
    """Start a Ray that listens on loopback only, so that other machines cannot reach the Ray of one user's job.

    Ray replaces a loopback address by the machine's own, unless it is told not to make clusters. Ray reads that switch
    when it is imported (the constant) and when its processes start (the environment).

    Parts of Ray look for "the" cluster of the machine and may find another one. The actor of Ray Train that frees the
    workers of a dead training is such a part. So all processes get the address in their environment, and the port is
    chosen here, because their environment is fixed before Ray would choose one.
    """
    values = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    if os.environ.get("RAY_AUTH_MODE", "token") == "token":
        # a token for this Ray only. Without it Ray would write one into HOME, which may not exist in a container
        values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment.set(values)
    makes_clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        for attempt in range(1, _STARTS + 1):
            port = _free_port()
            environment.set({ray_constants.GCS_PORT_ENVIRONMENT_VARIABLE: port, "RAY_ADDRESS": f"127.0.0.1:{port}"})
            try:
                with _without_usage_process():
                    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **_QUIET)
                return
            except Exception as error:
                if attempt == _STARTS or "timed out during startup" not in str(error):
                    raise
                ray.shutdown()
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = makes_clusters


@contextmanager
def _without_usage_process() -> Iterator[None]:
    """A Ray started in this block does not start the process of its usage report.

    Ray starts that process beside every cluster without a dashboard, even where the report is switched off. The process
    does nothing else, and asks the metadata servers of three clouds where it runs.
    """
    start = services.start_api_server
    # (address, process): Ray accepts None as the process
    services.start_api_server = lambda *_, **__: ("", None)
    try:
        yield
    finally:
        services.start_api_server = start


def _free_port() -> str:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
