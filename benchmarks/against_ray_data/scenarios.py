"""The faults: what happens to a program in the middle of its work, the same for both programs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.against_ray_data.programs import RAY_DATA, RAY_DATA_LENIENT, YOLACT, Program
from benchmarks.against_ray_data.stand_in_gpu import Batch
from benchmarks.object_store.proxy import Request, StoreProxy

THROTTLE_SECONDS = 20.0
#: the strike falls on this request of its kind, so that some rows are committed before
STRIKE_AT = 3


@dataclass(frozen=True)
class Running:
    """A program at work."""

    pid: int
    proxy: StoreProxy
    batches: Sequence[Batch]
    """what the stand-in GPUs have done so far"""


@dataclass(frozen=True)
class Scenario:
    """One row of the table. A program is started again until it ends well, as its user would do."""

    name: str
    title: str
    halfway: Callable[[Running], None] | None = None
    """called once, when half of the images went through the GPUs"""
    strike: Callable[[Program], Callable[[Request], bool]] | None = None
    """the request at which all processes are killed; it has reached the store, and its answer is lost"""
    strike_at: int = STRIKE_AT
    is_poisoned: bool = False
    """one image of the lake kills the process that decodes it"""
    programs: tuple[Program, ...] = (RAY_DATA, YOLACT)

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens."""
        return self.halfway is None and self.strike is None and not self.is_poisoned


def kill_tree(pid: int) -> None:
    """End a program and all that it started by SIGKILL, as a machine without power does."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        # the workers first: without their driver Ray's own processes would end in good order
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _machine_lost(running: Running) -> None:
    kill_tree(running.pid)


def _actor_killed(running: Running) -> None:
    with suppress(ProcessLookupError):
        os.kill(running.batches[-1].pid, signal.SIGKILL)


def _throttled(running: Running) -> None:
    running.proxy.throttle(THROTTLE_SECONDS)


#: folder that goes onto the PYTHONPATH of a program, and the size of the image that then kills its decoder
POISON = Path(__file__).parent / "poison"
POISON_WIDTH, POISON_HEIGHT = 61, 67
SCENARIOS = (
    Scenario("calm", "nothing happens"),
    Scenario("actor", "a model actor is killed", halfway=_actor_killed),
    Scenario("machine", "the machine is lost halfway", halfway=_machine_lost),
    Scenario("written", "the machine is lost right after rows were written", strike=lambda program: program.wrote_rows),
    Scenario(
        "commit",
        "the machine is lost between the two requests of a commit",
        strike=lambda program: program.in_commit,
        # the label job makes such a pair only when it publishes a part
        strike_at=1,
    ),
    Scenario("throttle", f"the store answers 503 SlowDown for {THROTTLE_SECONDS:.0f} s", halfway=_throttled),
    Scenario(
        "poison",
        "one image kills its decoder",
        is_poisoned=True,
        programs=(RAY_DATA, RAY_DATA_LENIENT, YOLACT),
    ),
)
