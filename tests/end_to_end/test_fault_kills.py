"""Every victim killed at every moment of a run: no row lost, none doubled, none changed by a bit.

The runs share one Ray cluster of three nodes, of which the first has no CPUs and holds the driver's connection only.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fault_moments import MOMENTS, Moments
from support.label_watcher import LabelReader
from support.lakes import draw_images, write_shards
from support.models import save_tiny_checkpoint
from support.s3_server import S3Server

from jobs.label import lease, run
from jobs.label.manifest import indexing
from jobs.label.options import LabelConfig
from jobs.runtime.errors import JobError

pytestmark = pytest.mark.faults

FAULTS = Path(__file__).resolve().parent.parent / "support" / "faults"
IMAGES = 24
#: victim → the role of the processes that may be struck, where it is not the one that reached the moment
IN_THE_RUN = {"model actor": "model-actor", "decode worker": "decode-worker", "node": "", "object store": ""}
DRIVERS = {"driver, SIGTERM": signal.SIGTERM, "driver, SIGKILL": signal.SIGKILL}
STOPPED = "driver, SIGSTOP"
#: seconds of the lease in these cells: renewed, lost, taken over
LEASE = (0.5, 3.0, 5.0)
CELLS = [
    (victim, moment)
    for victim in (*IN_THE_RUN, *DRIVERS, STOPPED)
    for moment in MOMENTS
    if (victim, moment) != ("model actor", "index")
]


@dataclass
class Stage:
    """What all cells share: the cluster, the lake, and what an undisturbed run made of it."""

    cluster: Any
    s3: S3Server
    moments: Moments
    lake: str
    checkpoint: str
    rows: list[dict]
    parts: dict[str, list[str]]

    def config(self, output: str) -> LabelConfig:
        return LabelConfig(
            (self.lake,),
            output,
            weights=self.checkpoint,
            precision="float32",
            num_actors="1",
            images_per_unit=2,
            images_per_part=8,
        )

    def command(self, output: str) -> list[str]:
        config = self.config(output)
        sizes = ["--precision", "float32", "--num-actors", "1", "--images-per-unit", "2", "--images-per-part", "8"]
        where = ["--output", output, "--weights", self.checkpoint, "--address", self.cluster.address]
        return [sys.executable, "-m", "jobs", "label", *config.inputs, *where, *sizes]

    def add_node(self) -> None:
        self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

    def node_of(self, pid: int) -> Any:
        """The node that a worker process runs on; where that is the head, any other."""
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        for node in self.cluster.worker_nodes:
            if {info.process.pid for info in node.all_processes["raylet"]} & above:
                return node
        return next(iter(self.cluster.worker_nodes))


def read_rows(s3: S3Server, output: str) -> tuple[list[dict], dict[str, list[str]]]:
    filesystem = s3.filesystem()
    files = sorted(filesystem.glob(f"{output.removeprefix('s3://')}/labels/part-*.parquet"))
    tables = {path.rpartition("/")[2]: pq.read_table(pa.BufferReader(filesystem.cat_file(path))) for path in files}
    parts = {name: table["image_id"].to_pylist() for name, table in tables.items()}
    return [row for table in tables.values() for row in table.to_pylist()], parts


@pytest.fixture(scope="module")
def stage(s3, tmp_path_factory, fault_report) -> Iterator[Stage]:
    import ray
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized(), "run these apart from the tests that share a local Ray: make test-faults"
    fault_report.expect("kills", CELLS)
    folder = tmp_path_factory.mktemp("kills")
    moments = Moments(folder / "control")
    lake = f"{s3.prefix('lake')}/shards"
    write_shards(lake, draw_images(IMAGES), 3)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(FAULTS))
        environment.setenv("YOLACT_TEST_CONTROL", str(moments.folder))
        environment.setenv("YOLACT_TEST_LEASE", ":".join(map(str, LEASE)))
        for name, seconds in zip(("RENEW_SECONDS", "LOST_SECONDS", "TIMEOUT_SECONDS"), LEASE, strict=True):
            environment.setattr(lease, name, seconds)
        # the lake is indexed while it is labelled, shard by shard
        environment.setenv("YOLACT_TEST_FIRST", "1")
        environment.setattr(indexing, "FIRST_IMAGES", 1)
        environment.setenv("RAY_worker_niceness", "0")
        # worker processes that one cell leaves idle serve the next
        environment.setenv("RAY_prestart_worker_first_driver", "0")
        environment.setenv("RAY_idle_worker_killing_time_threshold_ms", "3600000")
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        environment.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        environment.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        # a folder of its own, so that no other run takes this for the cluster of the machine; short, for its sockets
        home = tempfile.mkdtemp(prefix="ray-")
        head = {"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False, "temp_dir": home}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stage = Stage(cluster, s3, moments, lake, str(save_tiny_checkpoint(folder)), [], {})
        stage.add_node()
        stage.add_node()
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        undisturbed = s3.prefix("undisturbed")
        assert run(stage.config(undisturbed)) == 0
        stage.rows, stage.parts = read_rows(s3, undisturbed)
        assert len(stage.rows) == IMAGES
        assert len(stage.parts) == 3
        yield stage
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(home, ignore_errors=True)


def strike(stage: Stage, victim: str, pid: int) -> None:
    """The blow, `pid` being the process that stands still in the moment."""
    if victim == "object store":
        stage.s3.kill()
        stage.moments.release()
        time.sleep(2)
        stage.s3.start()
    elif victim == "node":
        stage.cluster.remove_node(stage.node_of(pid), allow_graceful=False)
    else:
        role = IN_THE_RUN[victim]
        living = stage.moments.living(role)
        # a worker that reached the moment itself is a victim too: who indexes or publishes is a task like decoding
        chosen = pid if pid in living or (role == "decode-worker" and not is_actor(stage, pid)) else living[-1]
        os.kill(chosen, signal.SIGKILL)


def is_actor(stage: Stage, pid: int) -> bool:
    return pid in stage.moments.living("model-actor")


def run_to_the_end(stage: Stage, output: str) -> int:
    """The same command until it succeeds; how often that took."""
    for attempt in range(1, 4):
        try:
            if run(stage.config(output)) == 0:
                return attempt
        except JobError as error:
            print(f"attempt {attempt}: {error}")
    raise AssertionError("three runs were not enough")


def check_and_record(stage, fault_report, cell, output, reader, *, seconds: float, runs: int, **more: Any) -> None:
    rows, _ = read_rows(stage.s3, output)
    counts = Counter(row["image_id"] for row in rows)
    lost = sum(row["image_id"] not in counts for row in stage.rows)
    doubled = sum(count - 1 for count in counts.values())
    assert (lost, doubled) == (0, 0)
    assert rows == stage.rows
    assert reader.complaints == []
    assert reader.looks > 0
    filesystem = stage.s3.filesystem()
    assert filesystem.exists(f"{output}/_SUCCESS")
    if cell[0] != STOPPED:  # whose actors go on: one may commit a unit again after the end
        assert not [path for path in filesystem.find(f"{output}/_state/staging") if path.endswith(".parquet")]
    fault_report.record(
        "kills", cell, lost=lost, doubled=doubled, seconds=seconds, runs=runs, looks=reader.looks, **more
    )


@pytest.mark.parametrize(("victim", "moment"), [cell for cell in CELLS if cell[0] in IN_THE_RUN])
def test_a_blow_that_the_driver_survives(stage, fault_report, victim, moment):
    output = stage.s3.prefix("out")
    struck: list[float] = []
    failures: list[BaseException] = []

    def blow(number: str) -> None:
        try:
            pid = stage.moments.wait(number)
            struck.append(time.monotonic())
            strike(stage, victim, pid)
        except BaseException as error:
            failures.append(error)
        finally:
            stage.moments.release()

    needs = IN_THE_RUN[victim] if moment not in ("index", "fetch") or victim == "model actor" else ""
    with LabelReader(stage.s3, output, stage.parts) as reader, stage.moments.armed(moment, needs) as number:
        thread = threading.Thread(target=blow, args=(number,))
        thread.start()
        try:
            runs = run_to_the_end(stage, output)
        finally:
            thread.join(420)
            if victim == "node" and len(stage.cluster.worker_nodes) < 2:
                stage.add_node()
        time.sleep(1)  # the reader's last look
    assert failures == []
    check_and_record(
        stage, fault_report, (victim, moment), output, reader, seconds=reader.progress_after(struck[0]), runs=runs
    )


@pytest.mark.parametrize(("victim", "moment"), [cell for cell in CELLS if cell[0] in DRIVERS])
def test_a_driver_that_is_struck_is_resumed(stage, fault_report, victim, moment):
    output = stage.s3.prefix("out")
    with LabelReader(stage.s3, output, stage.parts) as reader:
        with stage.moments.armed(moment) as number:
            process = subprocess.Popen(stage.command(output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stage.moments.wait(number, command=process)
            struck = time.monotonic()
            process.send_signal(DRIVERS[victim])
            _, err = process.communicate(timeout=150)
        left = time.monotonic() - struck
        assert not stage.s3.filesystem().exists(f"{output}/_SUCCESS")
        if victim == "driver, SIGTERM":
            assert process.returncode == 1, err
            assert left < 30
            assert err.splitlines()[-1] == "yolact: stopped by SIGTERM; run the same command again to go on"
            assert "Traceback" not in err
        else:
            assert process.returncode == -signal.SIGKILL
            left = None
        resumed = time.monotonic()
        runs = 1 + run_to_the_end(stage, output)
        time.sleep(1)
    check_and_record(
        stage,
        fault_report,
        (victim, moment),
        output,
        reader,
        seconds=reader.progress_after(resumed),
        runs=runs,
        left_seconds=left,
    )


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_stood_still_ends_by_itself_and_touches_nothing(stage, fault_report, moment):
    """It is stopped, another one takes over and finishes, and then it goes on."""
    output = stage.s3.prefix("out")
    # a driver that stands still gives no CPU back
    while len(stage.cluster.worker_nodes) < 4:
        stage.add_node()
    with LabelReader(stage.s3, output, stage.parts) as reader:
        with stage.moments.armed(moment) as number:
            process = subprocess.Popen(stage.command(output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stage.moments.wait(number, command=process)
            process.send_signal(signal.SIGSTOP)
        try:
            resumed = time.monotonic()
            runs = 1 + run_to_the_end(stage, output)
            objects = state_of(stage.s3, output)
            process.send_signal(signal.SIGCONT)
            went_on = time.monotonic()
            _, err = process.communicate()
            ended = time.monotonic() - went_on
        finally:
            process.kill()
        assert process.returncode == 1, err
        assert err.splitlines()[-1].startswith(
            "yolact: another driver took over this OUTPUT while this one stood still"
        )
        assert "Traceback" not in err
        assert state_of(stage.s3, output) == objects
        time.sleep(1)
    check_and_record(
        stage,
        fault_report,
        (STOPPED, moment),
        output,
        reader,
        seconds=reader.progress_after(resumed),
        runs=runs,
        ended_seconds=ended,
    )


def state_of(s3: S3Server, output: str) -> dict[str, bytes]:
    """Every object under OUTPUT with its content, but what late workers commit again: the same rows."""
    filesystem = s3.filesystem()
    found = [path for path in filesystem.find(output) if "/_state/staging/" not in path]
    return {path: filesystem.cat_file(path) for path in found}
