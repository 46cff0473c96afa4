"""`yolact label --policy`: the rows, the identity, and what other commands make of the same policy."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, put
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.runtime.errors import EXIT_OK, UsageError
from jobs.table.policy_file import read_policy
from jobs.table.read import open_labels

pytestmark = pytest.mark.usefixtures("local_ray")

POLICY = """
keep: [round, other]
rename: {other: thing}
classes: {other: {min_area: 400}, round: {score_threshold: 0.25017}}
"""


def test_labels_of_a_policy_are_the_labels_under_the_policy(tmp_path: Path):
    checkpoint = str(save_tiny_checkpoint(tmp_path))
    for name, data in draw_images(5).items():
        put(f"{tmp_path}/lake/{name}", data)
    (tmp_path / "policy.yaml").write_text(POLICY)
    policy = str(tmp_path / "policy.yaml")
    common = {"weights": checkpoint, "precision": "float32", "score_threshold": 0.2, "max_detections": 5000}
    lake = (f"{tmp_path}/lake",)
    assert run(LabelConfig(lake, f"{tmp_path}/all", **common)) == EXIT_OK
    assert run(LabelConfig(lake, f"{tmp_path}/some", policy=policy, **common)) == EXIT_OK

    under = open_labels(f"{tmp_path}/all").under(read_policy(policy))
    expected = [(row.image_id, row.instances) for row in under.images()]
    found = [(row.image_id, row.instances) for row in open_labels(f"{tmp_path}/some").images()]
    assert found == expected
    instances = [instance for _, row in found for instance in row]
    assert {(instance.label, instance.category) for instance in instances} == {(0, "round"), (1, "thing")}

    record = json.loads((tmp_path / "some" / "run.json").read_text())
    assert record["class_names"] == ["round", "thing"]
    assert record["counts"]["instances"] == len(instances)
    assert [rule["source"] for rule in record["identity"]["policy"]] == ["round", "other"]
    assert sum(map(len, pq.read_table(tmp_path / "some" / "labels")["instances"].to_pylist())) == len(instances)

    # the same again is done; another policy is another run
    assert run(LabelConfig(lake, f"{tmp_path}/some", policy=policy, **common)) == EXIT_OK
    (tmp_path / "policy.yaml").write_text("keep: [round]\n")
    with pytest.raises(UsageError, match="belongs to another run"):
        run(LabelConfig(lake, f"{tmp_path}/some", policy=policy, **common))
    (tmp_path / "policy.yaml").write_text("keep: [rond]\n")
    with pytest.raises(UsageError, match="the model tiny has no class 'rond'; did you mean 'round'"):
        run(LabelConfig(lake, f"{tmp_path}/other", policy=policy, **common))
    assert not (tmp_path / "other").exists()
