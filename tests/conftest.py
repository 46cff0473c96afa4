"""Fixtures that every test may use.

What a fixture starts is imported inside the fixture: `make quick` shall not load Ray or the S3 client.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.tiers import TIERS, marks_for, no_processes, watch_processes

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from support.fault_report import FaultReport
    from support.s3_server import S3Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """--device: where the tests of parity with the release compute."""
    parser.addoption("--device", default="cpu", help="device of the parity tests: cpu or cuda")


def pytest_configure(config: pytest.Config) -> None:
    """Start the watch that `no_processes` needs."""
    watch_processes()


def _parameters(item: pytest.Function) -> list[object]:
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by what it needs: see support/tiers.py."""
    for item in items:
        if isinstance(item, pytest.Function):
            # a test may ask for a fixture whose name is one of its parameters
            parameters = [value for value in _parameters(item) if isinstance(value, str)]
            for mark in sorted(marks_for(item.originalname, [*item.fixturenames, *parameters], item.path)):
                item.add_marker(mark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """In `make quick` a test must not start a process."""
    if "not process" not in item.config.option.markexpr or any(item.get_closest_marker(tier) for tier in TIERS):
        return (yield)
    with no_processes(item.nodeid):
        return (yield)


def pytest_report_header() -> list[str]:
    """What of the larger proofs is absent here, said once."""
    from support.browser import why_no_browser
    from support.parity_cases import CASES, LARGER

    missing = why_no_browser()
    return [
        f"parity cases: {len(CASES)}" + ("" if LARGER.exists() else f" (the larger set {LARGER} is absent)"),
        "browser tests: " + (f"skipped, {missing}" if missing else "run"),
    ]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running SeaweedFS; its credentials and endpoint stand in the environment of this process and its children."""
    from support.s3_server import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in server.env.items():
            environment.setenv(name, value)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def local_ray(s3: S3Server) -> Iterator[None]:
    """A real Ray on this machine with 2 CPUs, shared by the tests that kill nothing.

    The store starts first, because Ray's workers take its credentials from the environment.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # the test waits for the workers, so none of them runs at low priority
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    from support.local_ray import start_local_ray

    start_local_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def fault_report() -> Iterator[FaultReport]:
    """Where fault tests record what they saw; the page is written when every one of them ran and passed."""
    from support.fault_report import FaultReport

    report = FaultReport()
    yield report
    if report.is_whole():
        report.write()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """A headless Chromium; skips the tests of the module, with the command that installs one, where there is none."""
    from support.browser import open_browser

    with open_browser() as window:
        yield window
