"""Labelling on a cluster that starts with a head alone, as cluster/rayjob-label.yaml does, and grows to four GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.growing_cluster import growing_cluster

from benchmarks.scale.stand_in import save_stand_in_checkpoint, write_lake

ROOT = Path(__file__).resolve().parents[2]

#: labels with a stand-in for the model, which needs no GPU, and counts the nodes with a GPU that came
SCRIPT = """
import json, os, sys, threading, time
from benchmarks.scale.stand_in import StandInPredictor
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime.errors import exit_code_of

lake, weights, output, address = sys.argv[1:]

class SlowPredictor(StandInPredictor):
    "keeps every actor busy for as long as the cluster needs to grow"
    def predict_prepared(self, images):
        time.sleep(1.5)
        return super().predict_prepared(images)

most = 0
def count():
    global most
    import ray
    while True:
        time.sleep(0.5)
        if ray.is_initialized():
            try:
                gpus = sum(n["Resources"].get("GPU", 0) for n in ray.nodes() if n["Alive"])
                free = ray.available_resources().get("GPU", 0)
            except Exception:
                return
            most = max(most, gpus - free)

threading.Thread(target=count, daemon=True).start()
config = LabelConfig((lake,), output, weights=weights, precision="float32", engine="eager", images_per_unit=4,
                     address=address, log_format="json")
code = exit_code_of(lambda: label_lake(config, make_predictor=SlowPredictor).exit_code)
print("GPUS " + json.dumps(most))
sys.exit(code)
"""


@pytest.mark.slow
def test_a_cluster_grows_from_no_gpu_to_four(tmp_path):
    write_lake(tmp_path / "lake", 400, images_per_shard=100)
    save_stand_in_checkpoint(tmp_path / "weights.safetensors")
    memory = {"object_store_memory": 200_000_000}
    kinds = {
        "decode": {"resources": {"CPU": 2, **memory}, "max_workers": 1},
        "gpu": {"resources": {"CPU": 1, "GPU": 1, **memory}, "max_workers": 4},
    }
    arguments = [str(tmp_path / name) for name in ("lake", "weights.safetensors", "out")]
    with growing_cluster(kinds) as cluster:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments, cluster.address],
            env={**cluster.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "1 to 4 model actors (GPU each), up to 6 decode tasks" in done.stderr
    assert json.loads(done.stdout.split("GPUS ")[1]) == 4, done.stderr[-4000:]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["images"] == 400
