"""Metrics: silent outside Ray, and at the Prometheus endpoint of a real head with their tags inside it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time

import pytest

from jobs.runtime.metrics import METRICS, JobMetrics


def test_every_call_is_a_no_op_outside_ray():
    metrics = JobMetrics("label", "run-1")
    metrics.images(3)
    metrics.images(1, "undecodable")
    metrics.instances(0)
    metrics.retry("throttled")
    metrics.batch_fill(3, 8)
    metrics.gpu_memory()
    metrics.losses({"mask": 1.0})
    metrics.stage_seconds("decode", 0.1)
    assert pickle.loads(pickle.dumps(metrics)) == metrics


@pytest.mark.compute
def test_waits_and_times_are_those_of_the_stage(monkeypatch):
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr(JobMetrics, "stage_seconds", lambda self, stage, seconds: seen.append((stage, seconds)))
    metrics = JobMetrics("train", "run-1")

    def slow_items():
        for item in "ab":
            time.sleep(0.05)
            yield item

    for _ in metrics.waits("load", slow_items()):
        time.sleep(0.5)
    with pytest.raises(ZeroDivisionError), metrics.timed("step"):
        _ = 1 // 0
    assert [stage for stage, _ in seen] == ["load", "load", "step"]
    assert all(0.05 <= seconds < 0.5 for _, seconds in seen[:2]), seen


def test_all_names_carry_the_prefix():
    assert all(name.startswith("yolact_") for name in METRICS)


SCRIPT = """
import json, time, urllib.request
import ray
from jobs.runtime.metrics import JobMetrics

quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
ray.init(address="local", num_cpus=1, _metrics_export_port=%d, **quiet)

@ray.remote(num_cpus=1)
class Stage:
    def __init__(self, metrics): self.metrics = metrics
    def work(self):
        self.metrics.images(5)
        self.metrics.images(2, "undecodable")
        self.metrics.instances(7)
        self.metrics.retry("throttled", 3)
        self.metrics.batch_fill(4, 8)
        self.metrics.stage_seconds("decode", 0.1)

stage = Stage.remote(JobMetrics("label", "run-1"))
ray.get(stage.work.remote())
deadline, found = time.time() + 60, []
while time.time() < deadline and len(found) < 8:
    time.sleep(1)
    text = urllib.request.urlopen("http://127.0.0.1:%d/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_yolact")]
    found = {line.split("{")[0] for line in lines}
print(json.dumps(lines))
"""


def test_a_real_head_exposes_them_to_prometheus():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = SCRIPT % (port, port)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = json.loads(done.stdout.splitlines()[-1])

    def value(name: str, *tags: str) -> float:
        [line] = [line for line in lines if line.startswith(name + "{") and all(tag in line for tag in tags)]
        return float(line.rsplit(" ", 1)[1])

    assert value("ray_yolact_images_total", 'status="ok"', 'run="run-1"', 'job="label"') == 5
    assert value("ray_yolact_images_total", 'status="undecodable"') == 2
    assert value("ray_yolact_instances_total") == 7
    assert value("ray_yolact_retries_total", 'reason="throttled"') == 3
    assert value("ray_yolact_stage_seconds_count", 'stage="decode"') == 1
    assert value("ray_yolact_batch_images_total") == 4
    assert value("ray_yolact_batch_slots_total") == 8
