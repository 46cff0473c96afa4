"""label, train and export over hosts that share nothing but a network and a store; one is cut off, one loses the store.

The hosts are those of `support/hosts.py`. Ray runs on them as docs/cluster.md says for machines without Kubernetes.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.hosts import Host, Switch, switched_hosts, why_no_hosts
from support.label_watcher import LabelReader
from support.lakes import draw_images, write_shards
from support.models import save_tiny_checkpoint
from support.s3_server import S3Server
from support.training import draw_plates, tiny_config

from jobs.runtime.ray_session import WORKER_ENVIRONMENT

# the first test waits for Ray on three hosts and for a whole run; a busy machine may take long for that
pytestmark = [pytest.mark.hosts, pytest.mark.process, pytest.mark.timeout(3600)]

HEAD, WORKERS, STORE = "head", ("worker-1", "worker-2"), "store"
IMAGES = 160
SIZES = ("--precision", "float32", "--images-per-unit", "4", "--images-per-part", "40")
#: how many units were committed when the blow falls
STRIKE_AFTER = 6
STORE_AWAY_SECONDS = 60.0
#: what Ray prints on a driver's terminal: "(raylet) …", "(ModelActor pid=17, ip=…) …", lines of its log
LINE_OF_RAY = re.compile(r"\x1b\[|^\((raylet|autoscaler|.*pid=)|\.(cc|py):\d+", re.MULTILINE)


@dataclass
class Fleet:
    """The hosts with Ray on them, the store with the lake, and what an undisturbed run made of the lake."""

    switch: Switch
    hosts: dict[str, Host]
    store: S3Server
    environment: dict[str, str]
    lake: str
    weights: str

    def start_ray(self, name: str) -> None:
        """Run `ray start` on a host until Ray runs there. Ray gives up after 30 s, which a busy machine may exceed."""
        for _ in range(5):
            if self._tries_to_start_ray(name):
                return
            self.switch.reboot(self.hosts[name])
        raise AssertionError((self.hosts[name].disk / "ray-start.log").read_text())

    def _tries_to_start_ray(self, name: str) -> bool:
        host = self.hosts[name]
        head = f"{self.hosts[HEAD].address}:6379"
        here = ("--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
        where = here if name == HEAD else (f"--address={head}", "--num-cpus=1")
        options = ("--block", f"--node-ip-address={host.address}", "--object-store-memory=100000000")
        log = host.disk / "ray-start.log"
        with open(log, "w") as file:
            command = (sys.executable, "-m", "ray.scripts.scripts", "start", *where, *options)
            ray = host.popen(*command, environment=self.environment, stdout=file, stderr=file)
        while "Ray runtime started" not in log.read_text():
            if ray.poll() is not None:
                return False
            time.sleep(0.2)
        return True

    def yolact(self, *arguments: object) -> subprocess.Popen[str]:
        """A command on the head."""
        command = (sys.executable, "-m", "jobs", *map(str, arguments))
        pipe = subprocess.PIPE
        return self.hosts[HEAD].popen(*command, environment=self.environment, stdout=pipe, stderr=pipe)

    def label(self, output: str) -> subprocess.Popen[str]:
        return self.yolact("label", self.lake, "--output", output, "--weights", self.weights, *SIZES)


def read_parts(store: S3Server, output: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every file in labels/, by the file's name."""
    filesystem = store.filesystem()
    files = sorted(filesystem.glob(f"{output.removeprefix('s3://')}/labels/part-*.parquet"))
    return {path.rpartition("/")[2]: pq.read_table(io.BytesIO(filesystem.cat_file(path))).to_pylist() for path in files}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    if reason := why_no_hosts():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("fleet")
    with switched_hosts((HEAD, *WORKERS, STORE), folder) as (switch, hosts):
        at = hosts[STORE]
        store = S3Server(at.disk / "weed", at.address, at.enter, seen_as=Path("/tmp/weed"))
        store.start()
        with pytest.MonkeyPatch.context() as ours:
            for name, value in store.env.items():
                ours.setenv(name, value)
            lake, weights = f"{store.prefix('lake')}/shards", f"{store.prefix('weights')}/tiny.safetensors"
            write_shards(lake, draw_images(IMAGES), 6)
            store.filesystem().pipe_file(weights, save_tiny_checkpoint(folder).read_bytes())
        environment = {**store.env, **WORKER_ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        fleet = Fleet(switch, hosts, store, environment, lake, weights)
        for name in (HEAD, *WORKERS):
            token = hosts[name].disk / "home" / ".ray" / "auth_token"
            token.parent.mkdir()
            token.write_text("5" * 64)
        for name in (HEAD, *WORKERS):
            fleet.start_ray(name)
        yield fleet


def ended(command: subprocess.Popen[str]) -> str:
    """Wait for a command, which must succeed; everything that it printed."""
    out, err = command.communicate()
    print(out + err)
    assert command.returncode == 0, out + err
    return out + err


@dataclass(frozen=True)
class Undisturbed:
    """A run in which nothing happened: its OUTPUT, and its rows by file."""

    output: str
    parts: dict[str, list[dict[str, Any]]]

    @property
    def ids(self) -> dict[str, list[str]]:
        return {name: [row["image_id"] for row in rows] for name, rows in self.parts.items()}


@pytest.fixture(scope="module")
def undisturbed(fleet) -> Undisturbed:
    output = fleet.store.prefix("undisturbed")
    begin = time.monotonic()
    ended(fleet.label(output))
    print(f"undisturbed: {time.monotonic() - begin:.1f} s")
    parts = read_parts(fleet.store, output)
    assert sum(map(len, parts.values())) == IMAGES
    return Undisturbed(output, parts)


def test_the_hosts_share_nothing(fleet):
    """A file that one host writes is on no other host, and no host writes into the checkout."""
    text = "echo mine > /tmp/file; echo mine > ~/file; touch $0; hostname"
    checkout = str(Path(__file__).with_name("a-file"))
    for name in (HEAD, *WORKERS):
        host = fleet.hosts[name]
        assert not (host.disk / "file").exists()
        done = host.popen("sh", "-c", text, checkout, environment={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.communicate()[0].split() == [name]
        assert (host.disk / "file").exists()
        assert (host.disk / "home" / "file").exists()
        assert not Path(checkout).exists()


def test_label_and_export_run_over_the_hosts(fleet, undisturbed):
    assert {row["status"] for rows in undisturbed.parts.values() for row in rows} == {"ok"}
    output = f"{fleet.store.prefix('coco')}/coco.json"
    printed = ended(fleet.yolact("export", undisturbed.output, "--format", "coco", "--output", output))
    assert LINE_OF_RAY.search(printed) is None
    found = json.loads(fleet.store.filesystem().cat_file(output))
    assert len(found["images"]) == IMAGES
    instances = [instance for rows in undisturbed.parts.values() for row in rows for instance in row["instances"]]
    # COCO has no empty masks, so these are left out
    assert len(found["annotations"]) == sum(instance["area"] > 0 for instance in instances)


def test_two_training_workers_on_two_hosts(fleet, tmp_path):
    """They find each other, although every host's own name leads to 127.0.1.1."""
    plates = draw_plates(tmp_path / "plates")
    data, filesystem = fleet.store.prefix("plates"), fleet.store.filesystem()
    filesystem.put(str(tmp_path / "plates"), data, recursive=True)
    filesystem.put_file(tiny_config(tmp_path), f"{data}/tiny.json")
    options = {
        "annotations": f"{data}/{Path(plates['annotations']).name}",
        "images": f"{data}/{Path(plates['images']).name}",
        "output": f"{data}-run",
        "config": f"{data}/tiny.json",
        "init-weights": "random",
        "recipe": "nuclei",
        "precision": "float32",
        "window-size": 0,
        "batch-size": 4,
        "loader-processes": 0,
        "max-steps": 4,
        "num-workers": 2,
        "log-every": 1,
    }
    printed = ended(fleet.yolact("train", *(word for name, value in options.items() for word in (f"--{name}", value))))
    assert LINE_OF_RAY.search(printed) is None
    assert "done: 4 steps" in printed
    assert filesystem.exists(f"{data}-run/last.safetensors")


@pytest.mark.parametrize("blow", ["store away", "cut off"])
def test_a_blow_in_mid_run_loses_nothing_and_doubles_nothing(fleet, undisturbed, blow):
    output = fleet.store.prefix("out")
    first, second = (fleet.hosts[name] for name in WORKERS)
    store = fleet.hosts[STORE]
    with LabelReader(fleet.store, output, undisturbed.ids) as reader:
        command = fleet.label(output)
        while sum("/staging/" in path for path in reader.seen) < STRIKE_AFTER:
            assert command.poll() is None, command.communicate()
            time.sleep(0.1)
        struck = time.monotonic()
        if blow == "cut off":
            fleet.switch.pull(first)
        else:
            store.lose_the_way_to(second.address)
            threading.Timer(STORE_AWAY_SECONDS, store.find_the_way_to, [second.address]).start()
        assert not fleet.store.filesystem().exists(f"{output}/_SUCCESS"), "the run was over before the blow"
        printed = ended(command)
        over = time.monotonic()
        time.sleep(1)
    moments = sorted([struck, *(seen for seen in reader.seen.values() if seen > struck)])
    pause = max(later - earlier for earlier, later in pairwise(moments))
    print(f"{blow}: ended {over - struck:.0f} s after the blow, longest time without a new object {pause:.0f} s")
    assert reader.complaints == []
    assert reader.looks > 0
    assert read_parts(fleet.store, output) == undisturbed.parts
    assert LINE_OF_RAY.search(printed) is None
