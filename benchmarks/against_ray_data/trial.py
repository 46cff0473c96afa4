"""Runs one program in one scenario, starts it again until it ends well, and says what came out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.against_ray_data.programs import Place, Program
from benchmarks.against_ray_data.reader import TableReader, judge
from benchmarks.against_ray_data.scenarios import POISON, POISON_HEIGHT, POISON_WIDTH, Running, Scenario, kill_tree
from benchmarks.against_ray_data.stand_in_gpu import MILLISECONDS, RECORDS, Batch, busy_share, read_batches
from benchmarks.object_store.proxy import Request, StoreProxy
from benchmarks.object_store.server import ObjectStore, client_environment
from benchmarks.scale.watch import ProcessTree

ROOT = Path(__file__).resolve().parents[2]
#: starts of a program in one scenario
MOST_STARTS = 3
_POLL_SECONDS = 0.1
_SAMPLE_SECONDS = 1.0
#: exit code of a start that took too long and was ended
TOOK_TOO_LONG = "too long"


@dataclass
class Start:
    """One start of a program. Times are `time.time()`; memory is in MB (10⁶ bytes)."""

    began: float
    ended: float = 0.0
    exit_code: int | str = 0
    """negative for a signal"""
    driver_peak_mb: float = 0.0
    all_peak_mb: float = 0.0
    """resident memory of the driver, and memory that only its other processes use (USS)"""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """(time, CPU seconds of all processes so far)"""


@dataclass(frozen=True)
class Result:
    """What came out of one program in one scenario. Milliseconds are per image."""

    scenario: str
    program: str
    exit_codes: list[int | str]
    rows: int
    lost: int
    doubled: int
    failed: int
    torn_files: int
    torn_ids: int
    resume_seconds: float | None
    """from the start after the fault to the first new rows in the store"""
    first_rows_seconds: float | None
    """from the first start to the first rows in the store"""
    seconds: float
    """all starts together"""
    busy: float
    """share of the time from the first batch to the last in which the GPUs were busy, 0 to 1"""
    overhead_ms: float | None
    """time between the first batch and the last, less the GPUs' own share of it; None after an interruption"""
    cpu_ms: float | None
    """CPU time of all processes between the first batch and the last; None after an interruption"""
    driver_peak_mb: float
    all_peak_mb: float


@dataclass(frozen=True)
class Bench:
    """What all trials share. `names` are the lake's images."""

    store: ObjectStore
    place: Place
    names: frozenset[str]
    gpu_ms: float
    start_seconds: float
    """seconds that one start may take"""
    scratch: Path


class Trial:
    """One program in one scenario."""

    def __init__(self, bench: Bench, program: Program, scenario: Scenario) -> None:
        self._bench, self._program, self._scenario = bench, program, scenario
        self._records = bench.scratch / f"{scenario.name}-{program.rows}-{time.time_ns()}"
        self._log = self._records.with_suffix(".log")
        self._starts: list[Start] = []
        #: whether the fault of the scenario is still to come
        self._is_due = True

    def run(self) -> Result:
        """Start the program until it ends with exit code 0, at most `MOST_STARTS` times."""
        self._records.mkdir()
        bench, output = self._bench, self._bench.place.output
        with (
            StoreProxy(bench.store.endpoint) as proxy,
            TableReader(bench.store.filesystem(), output, self._program) as reader,
        ):
            while len(self._starts) < MOST_STARTS and (not self._starts or self._starts[-1].exit_code != 0):
                self._start(proxy)
            reader.look()
            requests = proxy.requests
        verdict = judge(bench.store.filesystem(), output, self._program, bench.names)
        batches = read_batches(self._records)
        overhead_ms, cpu_ms = self._costs(batches)
        return Result(
            scenario=self._scenario.name,
            program=self._program.name,
            exit_codes=[start.exit_code for start in self._starts],
            rows=verdict.rows,
            lost=verdict.lost,
            doubled=verdict.doubled,
            failed=verdict.failed,
            torn_files=reader.torn.files,
            torn_ids=len(reader.torn.doubled),
            resume_seconds=self._seconds_to_rows(1, requests),
            first_rows_seconds=self._seconds_to_rows(0, requests),
            seconds=sum(start.ended - start.began for start in self._starts),
            busy=busy_share(batches, bench.place.gpus),
            overhead_ms=overhead_ms,
            cpu_ms=cpu_ms,
            driver_peak_mb=max(start.driver_peak_mb for start in self._starts),
            all_peak_mb=max(start.all_peak_mb for start in self._starts),
        )

    @property
    def log(self) -> str:
        """The end of what the program printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])

    def _start(self, proxy: StoreProxy) -> None:
        start = Start(began=time.time())
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._program.command(self._bench.place),
                env=self._environment(proxy.endpoint),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        if self._is_due and self._scenario.strike is not None:
            matches = _Nth(self._scenario.strike(self._program), self._scenario.strike_at)
            proxy.strike(matches, partial(self._strike, process.pid))
        try:
            start.exit_code = self._watch(process, start, proxy)
        finally:
            kill_tree(process.pid)
            process.wait()
            start.ended = time.time()
            self._starts.append(start)

    def _strike(self, pid: int) -> None:
        self._is_due = False
        kill_tree(pid)

    def _environment(self, endpoint: str) -> Mapping[str, str]:
        poison = {"PYTHONPATH": f"{ROOT}{os.pathsep}{POISON}", "POISON_SIZE": f"{POISON_WIDTH}x{POISON_HEIGHT}"}
        return {
            **client_environment(endpoint),
            "PYTHONPATH": str(ROOT),
            **(poison if self._scenario.is_poisoned else {}),
            MILLISECONDS: str(self._bench.gpu_ms),
            RECORDS: str(self._records),
        }

    def _watch(self, process: subprocess.Popen[bytes], start: Start, proxy: StoreProxy) -> int | str:
        tree, sampled = ProcessTree(process.pid), 0.0
        while process.poll() is None:
            now = time.time()
            if now - start.began > self._bench.start_seconds:
                return TOOK_TOO_LONG
            if now - sampled > _SAMPLE_SECONDS:
                sampled = now
                _sample(tree, start)
            if self._is_due and self._scenario.halfway is not None:
                batches = read_batches(self._records)
                if sum(batch.images for batch in batches) >= self._bench.place.images / 2:
                    self._is_due = False
                    self._scenario.halfway(Running(process.pid, proxy, batches))
            time.sleep(_POLL_SECONDS)
        return process.returncode

    def _seconds_to_rows(self, number: int, requests: list[Request]) -> float | None:
        if number >= len(self._starts):
            return None
        start = self._starts[number]
        wrote = [r.at for r in requests if self._program.wrote_rows(r) and start.began <= r.at <= start.ended]
        return min(wrote) - start.began if wrote else None

    def _costs(self, batches: list[Batch]) -> tuple[float | None, float | None]:
        """Overhead and CPU time of an image; they count only where nothing interrupts the work."""
        if not batches or len(self._starts) > 1 or len(self._starts[0].cpu) < 2:
            return None, None
        begin, end = min(batch.begin for batch in batches), max(batch.end for batch in batches)
        images = sum(batch.images for batch in batches)
        own = sum(batch.end - batch.begin for batch in batches) / self._bench.place.gpus
        times, seconds = zip(*self._starts[0].cpu, strict=True)
        cpu = np.interp([begin, end], times, seconds)
        return 1000 * (end - begin - own) / images, 1000 * float(cpu[1] - cpu[0]) / images


def _sample(tree: ProcessTree, start: Start) -> None:
    with suppress(psutil.Error):
        memory, cpu = tree.look()
        start.cpu.append((time.time(), cpu))
        start.driver_peak_mb = max(start.driver_peak_mb, memory["driver"])
        start.all_peak_mb = max(start.all_peak_mb, sum(memory.values()))


class _Nth:
    """A condition that holds at the `number`-th request for which `matches` holds."""

    def __init__(self, matches: Callable[[Request], bool], number: int) -> None:
        self._matches, self._left = matches, number

    def __call__(self, request: Request) -> bool:
        if not self._matches(request):
            return False
        self._left -= 1
        return self._left == 0
