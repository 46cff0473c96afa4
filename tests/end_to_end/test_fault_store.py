"""Whole runs of `yolact label` on a store that misbehaves: what outlives the fault, and how the run says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fault_proxy import FaultProxy, Kind
from support.lakes import draw_images, write_files
from support.local_ray import start_local_ray
from support.models import save_tiny_checkpoint
from support.s3_server import S3Server

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.runtime.errors import EXIT_FAILED, EXIT_OK, EXIT_RUN_AGAIN, EXIT_TOO_MANY_BAD_IMAGES

pytestmark = pytest.mark.faults

FAULTS = Path(__file__).resolve().parent.parent / "support" / "faults"
IMAGES = 24


@dataclass(frozen=True)
class Passing:
    """A fault that the run must outlive: `rule` are `FaultProxy.fail`'s options, `reason` its name among the retries.

    `reason` None: nothing had to be tried again.
    """

    kind: Kind
    rule: dict
    reason: str | None


LAKE = {"method": "GET", "path": "picture-"}
PASSING = {
    "503 SlowDown for every third request": Passing("slow_down", {"times": None, "every": 3}, "throttled"),
    "every third read broken off in mid-body": Passing("reset", {"times": None, "every": 3, **LAKE}, "short body"),
    "every third body ends early": Passing("short_body", {"times": None, "every": 3, **LAKE}, "short body"),
    # told by the checksum that the store sends along
    "every third body shorter than asked for": Passing(
        "short_length", {"times": None, "every": 3, **LAKE}, "corrupt body"
    ),
    "stalls of 10 s, three times": Passing("stall", {"times": 3, "seconds": 10.0, **LAKE}, None),
    "403 for a while": Passing("forbidden", {"times": 12, **LAKE}, "forbidden"),
    "credentials expired for a while": Passing("expired", {"times": 12, **LAKE}, "credentials"),
}
GONE, OUTLASTED, DOWN = "404 for an object that was listed", "503 that outlasts the retries", "down from the start"


@dataclass
class Stage:
    proxy: FaultProxy
    s3: S3Server
    lake: str
    checkpoint: str
    rows: list[dict]

    def config(self, output: str) -> LabelConfig:
        return LabelConfig(
            (self.lake,), output, weights=self.checkpoint, precision="float32", images_per_unit=2, images_per_part=8
        )

    def read(self, output: str) -> list[dict]:
        filesystem = self.s3.filesystem()
        files = sorted(filesystem.glob(f"{output.removeprefix('s3://')}/labels/part-*.parquet"))
        tables = [pq.read_table(pa.BufferReader(filesystem.cat_file(path))) for path in files]
        return pa.concat_tables(tables).to_pylist()

    def retries(self, output: str) -> dict[str, int]:
        return json.loads(self.s3.filesystem().cat_file(f"{output}/run.json"))["runs"][0]["retries"]


@pytest.fixture(scope="module")
def stage(s3, tmp_path_factory, fault_report) -> Iterator[Stage]:
    """A Ray of 2 CPUs whose processes see the store through the proxy, and give up after 5 attempts."""
    import ray

    assert not ray.is_initialized(), "run these apart from the tests that share a local Ray: make test-faults"
    fault_report.expect("store", [*PASSING, GONE, OUTLASTED, DOWN])
    folder = tmp_path_factory.mktemp("store")
    lake = s3.prefix("lake")
    write_files(lake, draw_images(IMAGES))
    with FaultProxy(s3.endpoint) as proxy, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        environment.setenv("PYTHONPATH", str(FAULTS))
        environment.setenv("YOLACT_TEST_RETRY", "5:60")
        environment.setenv("RAY_worker_niceness", "0")
        environment.setenv("RAY_idle_worker_killing_time_threshold_ms", "3600000")
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        environment.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        start_local_ray()
        stage = Stage(proxy, s3, lake, str(save_tiny_checkpoint(folder)), [])
        undisturbed = s3.prefix("undisturbed")
        assert run(stage.config(undisturbed)) == EXIT_OK
        stage.rows = stage.read(undisturbed)
        assert len(stage.rows) == IMAGES
        yield stage
        ray.shutdown()


@pytest.fixture(autouse=True)
def healthy_afterwards(stage) -> Iterator[None]:
    yield
    stage.proxy.clear()


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_outlived_and_counted(stage, fault_report, capsys, name):
    fault, output = PASSING[name], stage.s3.prefix("out")
    rule = stage.proxy.fail(fault.kind, **fault.rule)
    code = run(stage.config(output))
    assert code == EXIT_OK
    assert rule.hits >= 3
    assert stage.read(output) == stage.rows
    retries = stage.retries(output)
    if fault.reason is None:
        assert retries == {}
    else:
        assert retries[fault.reason] > 0
        assert f"{sum(retries.values()):,} retries" in capsys.readouterr().out
    fault_report.record("store", name, outcome="all rows, to the bit", code=code, retries=retries)


def test_an_object_that_was_listed_and_is_gone_is_a_row(stage, fault_report):
    output = stage.s3.prefix("out")
    stage.proxy.fail("missing", times=None, method="GET", path="picture-0005")
    code = run(stage.config(output))
    assert code == EXIT_TOO_MANY_BAD_IMAGES
    rows = stage.read(output)
    (gone,) = [row for row in rows if row["status"] != "ok"]
    assert gone["image_id"].endswith("picture-0005.jpg")
    assert gone["status"] == "missing"
    assert [r for r in rows if r is not gone] == [r for r in stage.rows if r["image_id"] != gone["image_id"]]
    outcome = "a row of status `missing`; the others to the bit"
    fault_report.record("store", GONE, outcome=outcome, code=code, retries=stage.retries(output))


@pytest.mark.parametrize(("kind", "words"), [("forbidden", "403 AccessDenied"), ("archived", "403 InvalidObjectState")])
def test_one_object_that_is_refused_for_good_is_a_row(stage, kind, words):
    output = stage.s3.prefix("out")
    stage.proxy.fail(kind, times=None, method="GET", path="picture-0005")
    assert run(stage.config(output)) == EXIT_TOO_MANY_BAD_IMAGES
    rows = stage.read(output)
    (refused,) = [row for row in rows if row["status"] != "ok"]
    assert refused["image_id"].endswith("picture-0005.jpg")
    assert refused["status"] == "unreadable"
    assert words in refused["error"]
    assert [r for r in rows if r is not refused] == [r for r in stage.rows if r["image_id"] != refused["image_id"]]


def test_a_lake_that_is_refused_as_a_whole_is_left_for_the_next_run(stage):
    output = stage.s3.prefix("out")
    stage.proxy.fail("forbidden", times=None, method="GET", path="picture-")
    assert run(stage.config(output)) == EXIT_RUN_AGAIN
    stage.proxy.clear()
    assert run(stage.config(output)) == EXIT_OK
    assert stage.read(output) == stage.rows


def test_what_outlasts_the_retries_is_left_for_the_next_run(stage, fault_report, capsys):
    output = stage.s3.prefix("out")
    stage.proxy.fail("slow_down", times=None, method="GET", path="picture-0005")
    code = run(stage.config(output))
    assert code == EXIT_RUN_AGAIN
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("yolact: 2 images have no labels yet; last reason: ")
    assert "503 SlowDown" in said
    assert said.endswith("; run the same command again")
    retries = stage.retries(output)
    assert retries["throttled"] >= 4
    stage.proxy.clear()
    assert run(stage.config(output)) == EXIT_OK
    assert "this run   2 images" in capsys.readouterr().out
    assert stage.read(output) == stage.rows
    outcome = "says that 2 images have no labels yet; the next run takes them, all rows to the bit"
    fault_report.record("store", OUTLASTED, outcome=outcome, code=code, retries=retries)


def test_a_store_that_is_down_from_the_start_ends_the_run_in_one_line(stage, fault_report, tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable, "-m", "jobs", "label", stage.lake, "--output", stage.s3.prefix("out"),
            "--weights", stage.checkpoint, "--address", "local",
        ],
        env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    seconds = time.monotonic() - started
    assert done.returncode == EXIT_FAILED
    assert seconds < 60
    assert done.stderr.startswith("yolact: the store does not answer: ")
    assert len(done.stderr.splitlines()) == 1
    outcome = f"one line after {seconds:.0f} s: “the store does not answer”"
    fault_report.record("store", DOWN, outcome=outcome, code=done.returncode, retries={})
