"""Runs a command and records, once a second, the memory and CPU time of its process tree and the progress it logs."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    """One sample of the process tree. Memory is in MB (10⁶ bytes), times are in seconds since the start."""

    seconds: float
    images: int
    """images that have a row"""
    driver: float
    """resident memory of the command itself"""
    workers: float
    """sum of the memory that only Ray's workers use (USS)"""
    services: float
    """the same of raylet, GCS and Ray's agents"""
    store: float
    """bytes of objects in Ray's object store, as Ray counts them"""
    cpu_seconds: float
    """CPU seconds of all processes so far, also of those that ended"""


@dataclass
class Watched:
    """The record of one command."""

    exit_code: int = 0
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    progress: list[tuple[float, int]] = field(default_factory=list)
    """(seconds since the start, images done) as the command logged it"""
    log: list[str] = field(default_factory=list)
    """the other lines of its log"""


class ProcessTree:
    """Sums over a process and its descendants. The CPU time of ended processes stays in the sum."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[tuple[int, float], float] = {}

    def look(self) -> tuple[dict[str, float], float]:
        """Memory in MB of "driver", "workers" and "services", and the CPU seconds of all processes so far."""
        memory = {"driver": 0.0, "workers": 0.0, "services": 0.0}
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu[process.pid, process.create_time()] = times.user + times.system
                    if process is self._root:
                        memory["driver"] += process.memory_info().rss / 1e6
                    else:
                        memory[_kind(process.cmdline())] += process.memory_full_info().uss / 1e6
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return memory, sum(self._cpu.values())


def _kind(command: Sequence[str]) -> str:
    line = " ".join(command)
    return "workers" if line.startswith("ray::") or "default_worker.py" in line else "services"


def watch(command: Sequence[str], *, timeout_seconds: float) -> Watched:
    """Run `command` and sample it until it ends. Its stderr must have JSON lines with `done` or `store_bytes`.

    After `timeout_seconds` the command gets SIGTERM, and `subprocess.TimeoutExpired` is raised.
    """
    watched = Watched()
    start = time.monotonic()
    latest = {"done": 0, "store_bytes": 0}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            entry = _parse(line)
            if "done" in entry:
                watched.progress.append((time.monotonic() - start, entry["done"]))
            elif "store_bytes" not in entry:
                watched.log.append(line.rstrip())
            latest.update({key: entry[key] for key in latest if key in entry})

    reader = threading.Thread(target=read_log, daemon=True)
    reader.start()
    tree = ProcessTree(process.pid)
    try:
        while process.poll() is None:
            seconds = time.monotonic() - start
            if seconds > timeout_seconds:
                raise subprocess.TimeoutExpired(process.args, timeout_seconds)
            memory, cpu_seconds = tree.look()
            if memory["driver"]:
                store = latest["store_bytes"] / 1e6
                watched.samples.append(Sample(seconds, latest["done"], store=store, cpu_seconds=cpu_seconds, **memory))
            time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - start - seconds)))
    finally:
        if process.poll() is None:
            process.terminate()
        watched.exit_code = process.wait()
        watched.seconds = time.monotonic() - start
        reader.join(10)
    return watched


def _parse(line: str) -> dict[str, int]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
