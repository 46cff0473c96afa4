"""What a training run tells: JSON lines with the run's id, and metrics of its steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.training import draw_plates, train_config

from jobs.runtime.logs import run_id
from jobs.runtime.metrics import METRICS, JobMetrics
from jobs.train import command as training_run
from jobs.train import run

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray, pycocotools and tensorboardX warn about their own code


def test_a_run_logs_json_and_records_its_metrics(local_ray, tmp_path, monkeypatch, capsys):
    recorded = tmp_path / "recorded.jsonl"

    class ToFile(JobMetrics):
        """What a worker hands to Ray, written down: local, so that it travels to the worker by value."""

        def _record(self, method: str, name: str, value: float, **tags: str) -> None:
            with recorded.open("a") as file:
                file.write(json.dumps({"method": method, "name": name, "value": value, "run": self.run, **tags}) + "\n")

    monkeypatch.setattr(training_run, "JobMetrics", ToFile)
    plates = draw_plates(tmp_path / "plates")
    validation = {"val_annotations": plates["annotations"], "val_images": plates["images"]}
    options = train_config(tmp_path, plates, max_steps=3, log_format="json", **validation)
    assert run(options) == 0

    run_name = run_id(str(Path(options.output)))
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.err.splitlines() if line.startswith('{"time"')]
    assert {line["run"] for line in lines} == {run_name}
    assert any(line["message"].startswith("step 3/3  loss") for line in lines)
    assert "step 3/3" not in printed.out

    seen = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert {entry["run"] for entry in seen} == {run_name}
    assert {entry["name"] for entry in seen} <= set(METRICS)
    assert sum(entry["value"] for entry in seen if entry["name"] == "yolact_images") == 3 * 4
    assert {"class", "box", "mask"} <= {entry["part"] for entry in seen if entry["name"] == "yolact_loss"}
    stages = [entry["stage"] for entry in seen if entry["name"] == "yolact_stage_seconds"]
    assert {stage: stages.count(stage) for stage in ("load", "step")} == {"load": 3, "step": 3}
    assert {"validation", "checkpoint"} <= set(stages)
