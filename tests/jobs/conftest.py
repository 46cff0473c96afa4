"""Fixtures of the job tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.fault_report import FaultReport
from support.local_ray import start_local_ray
from support.s3_server import S3Server


@pytest.fixture(scope="session")
def fault_report() -> Iterator[FaultReport]:
    """Where fault tests put what they saw; docs/faults.md is written when all of them ran and held."""
    report = FaultReport()
    yield report
    if report.is_whole():
        report.write()


@pytest.fixture(scope="session")
def local_ray(s3: S3Server) -> Iterator[None]:
    """A real Ray on this machine with 2 CPUs, shared by the tests that do not kill anything.

    Its workers have the store's credentials from the environment, so that the store comes first.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the test waits for them, so they matter as much as it does
    import ray

    start_local_ray()
    yield
    ray.shutdown()
