"""run.json: written and read back, and as earlier versions wrote it."""

from __future__ import annotations

import json

import pytest

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.table import record
from jobs.table.output import Output
from jobs.table.record import RunCounts, RunEntry, RunRecord, Steady, Thresholds, WeightsFile

#: the keys that readers rely on, in their order
KEYS = [
    "schema_version", "status", "run_id", "identity_sha256", "identity", "model", "config", "weights", "thresholds",
    "nms", "precision", "engine", "engine_reason", "quantisation", "class_names", "versions", "inputs",
    "passed_over", "runs",
]  # fmt: skip


def test_it_reads_what_it_wrote_under_the_same_keys(tmp_path):
    entry = RunEntry("2026-01-01T00:00:00+00:00", {"ray": "2"}, None, 3, 1.5, 2.0, Steady(2, 1.0, 7.0), {"fetch": 0.5})
    written = RunRecord(
        status="finished",
        identity={"limit": None},
        weights=WeightsFile("s3://b/w.pth", "a" * 64),
        thresholds=Thresholds(0.15, 0.5, 100),
        class_names=("cell", "nucleus"),
        inputs=("lake",),
        passed_over={".jxl": 3},
        runs=(entry,),
        counts=RunCounts(3, 2, 1, 9, {"ok": 2, "missing": 1}),
    )
    output = Output(str(tmp_path))
    storage.put_atomic(output.run_record, written.to_json())
    assert record.read(output) == written
    values = json.loads((tmp_path / "run.json").read_text())
    assert list(values) == [*KEYS, "counts"]
    assert values["weights"] == {"uri": "s3://b/w.pth", "sha256": "a" * 64}
    assert values["runs"][0]["steady"] == {"images": 2, "seconds": 1.0, "began": 7.0}
    assert "counts" not in RunRecord().to_dict()


def test_one_of_an_earlier_version_is_read(tmp_path):
    earlier = {
        "model": "yolact_base",
        "precision": "float32",
        "weights": {"uri": "w", "sha256": "b", "more": 1},
        "runs": [{"started": "x", "finished": "y", "images": 2, "seconds": 1.0, "images_per_second": 2.0}],
        "a key of another version": 1,
    }
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    found = record.read(Output(str(tmp_path)))
    assert (found.model, found.precision, found.engine, found.quantisation) == ("yolact_base", "float32", "", None)
    assert found.weights == WeightsFile("w", "b")
    assert found.runs == (RunEntry("x", {}, "y", 2, 1.0, 2.0),)
    assert found.counts is None


@pytest.mark.parametrize("text", ["", "no json", "[]", "3", '{"runs": 3}', '{"weights": "w"}'])
def test_another_file_is_bad_usage(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="is not a run record of this job"):
        record.read(Output(str(tmp_path)))


def test_no_file_is_no_record(tmp_path):
    assert record.read(Output(str(tmp_path))) is None
