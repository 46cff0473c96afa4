"""Labelling on a cluster that starts with a head alone, as cluster/rayjob-label.yaml does, grows, and shrinks again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.growing_cluster import GrowingCluster, growing_cluster

from benchmarks.scale.stand_in import save_stand_in_checkpoint, write_lake
from jobs.table.read import read_labels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 4000
MEMORY = {"object_store_memory": 200_000_000}
DECODE = {"resources": {"CPU": 2, **MEMORY}, "max_workers": 1}
#: an actor counts as working if it has begun a call of the model within this many seconds
RECENT_SECONDS = 10.0

#: labels with a stand-in for the model, which needs no GPU. Every actor notes its calls in a file of its own; a call
#: takes 1.5 s until the file `hurry` appears
SCRIPT = """
import os, sys, time
from pathlib import Path
from benchmarks.scale.stand_in import StandInPredictor
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime.errors import exit_code_of

lake, weights, output, address, notes = sys.argv[1:]

class SlowPredictor(StandInPredictor):
    def predict_prepared(self, images):
        begin = time.time()
        if not Path(notes, "hurry").exists():
            time.sleep(1.5)
        found = super().predict_prepared(images)
        with open(Path(notes, f"actor-{os.getpid()}"), "a") as file:
            file.write(f"{begin} {time.time()}\\n")
        return found

config = LabelConfig((lake,), output, weights=weights, precision="float32", engine="eager", images_per_unit=4,
                     address=address, log_format="json")
sys.exit(exit_code_of(lambda: label_lake(config, make_predictor=SlowPredictor).exit_code))
"""


@dataclass(frozen=True)
class Run:
    """A labelling run on a growing cluster; its actors note their calls in `notes`, its log is `log`."""

    cluster: GrowingCluster
    command: subprocess.Popen[bytes]
    output: Path
    notes: Path
    log: Path

    def working(self) -> int:
        """How many actors work at present."""
        now = time.time()
        calls = [path.read_text().splitlines() for path in self.notes.glob("actor-*")]
        return sum(bool(lines) and float(lines[-1].split()[1]) > now - RECENT_SECONDS for lines in calls)

    def wait_until(self, what: str, reached: Callable[[], bool]) -> float:
        """Wait as long as the run goes on; the seconds that it took."""
        begin = time.monotonic()
        while not reached():
            assert self.command.poll() is None, f"ended before {what}: {self.log.read_text()[-4000:]}"
            time.sleep(0.5)
        print(f"{what}: after {time.monotonic() - begin:.0f} s")
        return time.monotonic() - begin

    def finish(self) -> None:
        """Let the actors hurry, and check that the run ends well with every image once."""
        (self.notes / "hurry").touch()
        assert self.command.wait() == 0, self.log.read_text()[-4000:]
        ids = [image.image_id for image in read_labels(str(self.output))]
        assert len(ids) == len(set(ids)) == IMAGES


@contextmanager
def labelling(folder: Path, gpus: int) -> Iterator[Run]:
    """A run on a cluster that may grow to so many nodes with a GPU."""
    write_lake(folder / "lake", IMAGES, images_per_shard=1000)
    save_stand_in_checkpoint(folder / "weights.safetensors")
    output, notes, log = folder / "out", folder / "notes", folder / "label.log"
    notes.mkdir()
    with growing_cluster(kinds_of(gpus)) as cluster, open(log, "w") as file:
        arguments = [folder / "lake", folder / "weights.safetensors", output, cluster.address, notes]
        command = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, arguments)],
            env={**cluster.environment, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
        )
        try:
            yield Run(cluster, command, output, notes, log)
        finally:
            command.kill()
            command.wait()


def kinds_of(gpus: int) -> dict[str, dict]:
    return {"decode": DECODE, "gpu": {"resources": {"CPU": 1, "GPU": 1, **MEMORY}, "max_workers": gpus}}


def test_a_cluster_grows_from_no_gpu_to_eight_and_shrinks_to_three(tmp_path):
    """Two of the five nodes that go are killed like spot machines; the autoscaler ends the other three."""
    with labelling(tmp_path, 8) as run:
        run.wait_until("the first node with a GPU", lambda: len(run.cluster.nodes_with_gpu()) > 0)
        run.wait_until("eight nodes", lambda: len(run.cluster.nodes_with_gpu()) == 8)
        run.wait_until("eight actors at work", lambda: run.working() == 8)
        assert "1 to 8 model actors (GPU each), up to 10 decode tasks" in run.log.read_text()
        for node in run.cluster.nodes_with_gpu()[:2]:
            run.cluster.lose(node)
        run.cluster.allow(kinds_of(3))
        run.wait_until("three nodes", lambda: len(run.cluster.nodes_with_gpu()) == 3)
        run.wait_until("three actors at work", lambda: run.working() == 3)
        run.finish()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["images"] == IMAGES
