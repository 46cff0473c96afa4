from __future__ import annotations

import json
import multiprocessing
import os
import socket
import threading

import pytest

from jobs import storage
from jobs.label import lease
from jobs.label.lease import Holder, Lease
from jobs.runtime.errors import JobError


@pytest.fixture(params=["disk", "s3"])
def uri(request, tmp_path):
    folder = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3").prefix("lease")
    return f"{folder}/_state/lease.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.3)
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
