"""Damaged copies of small files, for the fuzz tests: faults at random places, and the process that reads the copies.

The file in hand always stands in the test's folder as "current", so that whoever started the process can name it.
"""

from __future__ import annotations

import base64
import resource
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
_NUMBERS = (0, 1, 2, 3, 7, 8, 12, 16, 127, 128, 255, 256, 257, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def fault(random: np.random.Generator, data: bytearray, place: int, seeds: list[bytes]) -> None:
    """One fault at byte `place`: other bytes, a number at the edge of its type, a cut, a repetition, part of a seed."""
    match int(random.integers(8)):
        case 0:
            data[place] ^= 1 << int(random.integers(8))
        case 1:
            data[place] = int(random.integers(256))
        case 2 | 3:
            form = ("<H", ">H", "<I", ">I")[random.integers(4)]
            number = _NUMBERS[random.integers(len(_NUMBERS))]
            value = struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
            data[place : place + len(value)] = value
        case 4:
            del data[place : place + int(random.integers(1, 40))]
        case 5:
            data[place:place] = data[place : place + int(random.integers(1, 40))]
        case 6:
            other = seeds[random.integers(len(seeds))]
            start = int(random.integers(len(other)))
            piece = other[start : start + int(random.integers(1, 200))]
            data[place : place + len(piece)] = piece
        case _:
            if random.integers(4) == 0:
                del data[max(place, 16) :]


def limit_memory(more_bytes: int) -> None:
    """Let this process have `more_bytes` of address space above what it has now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, used + more_bytes))


def judge_copies(folder: Path, copies: range, make: Callable[[int], bytes], judge: Callable[[bytes], str]) -> None:
    """Judge the copy `make(number)` for each number; ends the process with code 3 where `judge` raises.

    Prints how often `judge` gave which answer.
    """
    found: dict[str, int] = {}
    with (folder / "current").open("wb", buffering=0) as current, (folder / "number").open("wb", buffering=0) as place:
        for number in copies:
            data = make(number)
            current.seek(0)
            current.write(data)
            current.truncate()
            place.seek(0)
            place.write(b"%12d" % number)
            try:
                answer = judge(data)
            except BaseException:
                traceback.print_exc()
                sys.exit(3)
            found[answer] = found.get(answer, 0) + 1
    print(found)


def run_child(child: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of `tests/fuzz` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", str(child), str(folder), *map(str, arguments)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def fail_with_current(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """Fail the test if the child ended otherwise than well; the message has the file that it ended at."""
    if done.returncode != 0:
        data = base64.b64encode((folder / "current").read_bytes()).decode()
        pytest.fail(f"exit code {done.returncode}\n{done.stderr[-3000:]}\nthe file, as base64: {data}")
