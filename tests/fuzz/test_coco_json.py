"""Mutated annotation files: none ends a process by a signal, hangs it, or raises anything but one short line.

YOLACT_FUZZ_COCO scales the number of examples; 1 is what `make test-fuzz` runs.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.odd_annotations import BROKEN, BROKEN_IMAGES, MENDED, REFUSED, good_content

# on a busy machine a test may take many times as long as alone; the limit is there to end a hang
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(3600)]

CHILD = Path(__file__).with_name("coco_child.py")
ROOT = CHILD.parents[2]

numbers = st.one_of(
    st.integers(-5, 200),
    st.sampled_from([0, -1, 1.5, 59, 60, 61, 4800, 2**31, 2**32, 2**53, 2**63, 10**30, 2e8, 1e300, -2e8, 1e-300]),
    st.floats(),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=6), st.sampled_from(["0", "1", "2", "a.png"]))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
#: the characters of compressed counts, and some others
counts = st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40)
segmentations = st.one_of(
    st.lists(st.lists(numbers, max_size=12), max_size=4),
    st.builds(lambda text: {"size": [60, 80], "counts": text}, counts),
    st.builds(lambda runs: {"size": [60, 80], "counts": runs}, st.lists(numbers, max_size=8)),
    values,
)
boxes = st.lists(numbers, min_size=4, max_size=4)


class Child:
    """The process that reads the files; a new one after one that died."""

    def __init__(self) -> None:
        self.process = self._start()
        self.answers = {"ok": 0, "refused": 0}

    def _start(self) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        return subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(CHILD)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def read(self, data: bytes) -> None:
        """Fails with the data if the child died or met an error that is not for users."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(data).decode() + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process = self._start()
            raise AssertionError(f"the process ended with {code} at {data[:2000]!r}")
        answer = base64.b64decode(line).decode()
        assert answer in self.answers, f"{answer}\nat {data[:2000]!r}"
        self.answers[answer] += 1

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def child():
    running = Child()
    yield running
    print(running.answers)
    running.close()


SCALE = float(os.environ.get("YOLACT_FUZZ_COCO", "1"))


def fuzz(examples):
    """Many examples, each of any length of time: a busy machine is no failure, and the test's own limit ends a hang."""
    number = max(1, int(examples * SCALE))
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, inner in entries for found in paths_of(inner, (*path, key)))]


PATHS = paths_of(good_content())[1:]


def changed(content: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set the value at a path, if earlier changes left the path there."""
    for key in path[:-1]:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(content, dict) or (isinstance(content, list) and path[-1] in range(len(content))):
        content[path[-1]] = value


@fuzz(2500)
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=4))
def test_any_value_anywhere(child, changes):
    content = good_content()
    for path, value in changes:
        changed(content, path, value)
    child.read(json.dumps(content).encode())


def with_object(size=(60, 80), **values):
    """The good file with another size of its first image, and other values in that image's first annotation."""
    content = good_content()
    content["images"][0]["height"], content["images"][0]["width"] = size
    content["annotations"][0].update(values)
    return json.dumps(content).encode()


@fuzz(2500)
@given(found=segmentations)
def test_any_mask(child, found):
    child.read(with_object(segmentation=found, bbox=[10, 10, 12, 12]))


@fuzz(1500)
@given(box=boxes, size=st.just((60, 80)) | st.tuples(numbers, numbers))
def test_any_box_and_size(child, box, size):
    child.read(with_object(size, bbox=box))


@fuzz(1500)
@given(found=segmentations, box=boxes | st.just([10, 10, 12, 12]), size=st.tuples(numbers, numbers))
def test_any_mask_box_and_size(child, found, box, size):
    child.read(with_object(size, segmentation=found, bbox=box))


@fuzz(2000)
@given(seed=st.integers(0, 2**32), edits=st.integers(1, 8))
def test_any_bytes(child, seed, edits):
    rng = random.Random(seed)
    data = bytearray(json.dumps(good_content()).encode())
    for _ in range(edits):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randrange(1, 40)]
            case 2:
                data[place:place] = data[place : place + rng.randrange(1, 40)]
            case _:
                data[place:place] = rng.choice([b"null", b"NaN", b"-1e999", b"[", b"}", b'"', b"\xff", b"99999999999"])
    child.read(bytes(data))


def test_every_odd_file(child):
    for oddity in [*MENDED, *BROKEN, *BROKEN_IMAGES, *REFUSED]:
        child.read(oddity.text())
