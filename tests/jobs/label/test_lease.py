"""One driver at a time holds an OUTPUT: taking the lease, losing it, taking it over."""

from __future__ import annotations

import ast
import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import storage
from jobs.label import lease
from jobs.label.fence import NoFence
from jobs.label.lease import Holder, Lease
from jobs.runtime.errors import JobError


@pytest.fixture(params=["disk", "s3"])
def uri(request, tmp_path):
    folder = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3").prefix("lease")
    return f"{folder}/_state/lease.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(lease, "LOST_SECONDS", 2.0)
    monkeypatch.setattr(lease, "TIMEOUT_SECONDS", 3.0)


def foreign_holder(**changes) -> Holder:
    return Holder(**{"owner": "x", "host": "elsewhere", "pid": 1, "boot": "", "renewals": 0, **changes})


def test_a_second_driver_is_refused_while_the_first_lives(uri):
    with Lease(uri), pytest.raises(JobError, match="another driver is at work"), Lease(uri):
        pass


def test_it_is_given_back(uri):
    with Lease(uri):
        assert storage.exists(uri)
    assert not storage.exists(uri)
    with Lease(uri):
        pass


@pytest.mark.compute
def test_one_that_stands_still_is_taken_over(uri):
    storage.put_atomic(uri, foreign_holder().to_bytes())
    with Lease(uri) as held:
        held.check()
        assert json.loads(storage.read_bytes(uri))["owner"] != "x"


def _noop() -> None:
    pass


def test_one_of_a_dead_process_on_this_machine_is_taken_over_at_once(uri, monkeypatch):
    monkeypatch.setattr(lease, "TIMEOUT_SECONDS", 600.0)
    child = multiprocessing.get_context("spawn").Process(target=_noop)
    child.start()
    child.join()
    dead = foreign_holder(host=socket.gethostname(), pid=child.pid, boot=lease._boot_id())
    storage.put_atomic(uri, dead.to_bytes())
    with Lease(uri):
        pass


def test_a_living_process_on_this_machine_is_not_known_dead():
    assert not foreign_holder(host=socket.gethostname(), pid=os.getpid(), boot=lease._boot_id()).is_known_dead()
    assert not foreign_holder(pid=2**22 + 1).is_known_dead()


def test_the_holder_notices_that_it_was_taken_over(uri):
    with Lease(uri) as held:
        storage.put_atomic(uri, foreign_holder().to_bytes())
        held._renewer.join(30)
        with pytest.raises(JobError, match="another driver took over"):
            held.check()
    assert json.loads(storage.read_bytes(uri))["owner"] == "x"


@pytest.mark.compute
def test_of_many_contenders_for_a_dead_lease_one_wins(uri):
    storage.put_atomic(uri, foreign_holder().to_bytes())
    outcomes: list[str] = []
    release = threading.Event()

    def contend() -> None:
        try:
            with Lease(uri):
                outcomes.append("held")
                release.wait(60)
        except JobError:
            outcomes.append("refused")

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 4:
        release.wait(0.05)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


#: a driver as a process of its own: it holds the lease, and deletes an object when it is told to
DRIVER = """
import sys
from jobs.label import lease
from jobs.runtime.errors import JobError
lease.RENEW_SECONDS, lease.LOST_SECONDS = 0.3, 2.0
with lease.Lease(sys.argv[1]) as held:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        held.delete([sys.argv[2]])
        print("deleted")
    except JobError as error:
        print(error)
"""


@contextlib.contextmanager
def stopped_driver(uri: str, victim: str) -> Iterator[subprocess.Popen[str]]:
    """A driver that holds the lease and stands still, told to delete `victim` as soon as it goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, uri, victim], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        process.stdin.write("go\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGCONT)
    return process.communicate()[0]


@pytest.mark.parametrize("successor", ["is at work", "has finished"])
def test_a_holder_that_stood_still_deletes_nothing_of_its_successor(uri, successor):
    victim = f"{uri}.victim"
    storage.put_atomic(victim, b"labels")
    with stopped_driver(uri, victim) as process:
        with Lease(uri) as held:
            if successor == "is at work":
                said = go_on(process)
            held.check()
        if successor == "has finished":
            said = go_on(process)
    assert said.startswith("another driver took over")
    assert storage.exists(victim)
    assert not storage.exists(uri)


def test_a_holder_that_stood_still_alone_goes_on_once_it_has_renewed_its_lease(uri):
    victim = f"{uri}.victim"
    storage.put_atomic(victim, b"stray")
    with stopped_driver(uri, victim) as process:
        before = json.loads(storage.read_bytes(uri))["renewals"]
        time.sleep(3)
        assert json.loads(storage.read_bytes(uri))["renewals"] == before
        assert go_on(process) == "deleted\n"
    assert not storage.exists(victim)


def test_a_worker_looks_at_the_lease_itself(uri):
    with Lease(uri) as held:
        fence = pickle.loads(pickle.dumps(held.for_workers))
        fence.check()
        storage.put_atomic(uri, foreign_holder().to_bytes())
        with pytest.raises(JobError, match="another driver took over"):
            fence.delete([uri])
        held._renewer.join(30)
    storage.delete_objects([uri])
    with pytest.raises(JobError, match="another driver took over"):
        fence.check()


def test_a_late_write_of_a_driver_that_stood_still_is_refused(uri):
    """The write comes after the check and after the successor's: the condition of the store is what stops it."""
    fence, target = NoFence(), f"{uri}.target"
    fence.create(target, b"mine")
    fence.create(target, b"mine")
    _, version = storage.read_versioned(target)
    fence.replace(target, b"successor's", version)
    for late in (lambda: fence.create(target, b"late"), lambda: fence.replace(target, b"late", version)):
        with pytest.raises(JobError, match="was written by another driver just now"):
            late()
    assert storage.read_bytes(target) == b"successor's"


def test_only_fenced_writes_in_the_label_job():
    """Whatever writes or deletes under OUTPUT goes through a fence, but for what any driver writes the same."""
    unfenced = {"put_atomic", "put_if_absent", "replace_if_unchanged", "upload_file", "delete_objects"}
    allowed = {
        "fence.py": unfenced,
        "lease.py": {"put_if_absent", "replace_if_unchanged"},
        # named by their content, or by run and unit, and the same from every driver
        "manifest/indexing.py": {"put_atomic"},
        "pipeline/stages.py": {"put_atomic"},
        # of a part that no generation names
        "pipeline/publish.py": {"delete_objects"},
        "networks.py": {"put_atomic"},
    }
    package = Path(lease.__file__).parent
    for path in package.rglob("*.py"):
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert used & unfenced <= allowed.get(path.relative_to(package).as_posix(), set()), path
