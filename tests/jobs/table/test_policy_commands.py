"""The same policy given to export, train and evaluate: each has the classes and instances that it takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from support.tables import CLASS_NAMES, export, instance, random_rows, row, write_labels

from jobs.evaluate.command import evaluate
from jobs.evaluate.options import EvaluateConfig
from jobs.evaluate.policy import threshold_of
from jobs.runtime.errors import UsageError
from jobs.table.policy import ClassRule, Policy
from jobs.table.policy_file import read_policy
from jobs.table.read import open_labels
from jobs.table.schema import LABELS
from jobs.train.data import read_label_annotations
from yolact.coco.curves import Curve

ROWS = random_rows(40, seed=3)
#: the class of two words is dropped, the others become one
POLICY = """
drop: [traffic light]
merge: {thing: [person, 'it''s "odd" <b>']}
min_area: 30
classes: {person: {score_threshold: 0.6}}
"""


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> str:
    return write_labels(tmp_path_factory.mktemp("labels") / "out", [ROWS])


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


def wanted(least: float = 0.0) -> list[float]:
    """The scores of the instances that the policy takes, by a plain loop; `least` holds where it has no threshold."""
    found = [i for row in ROWS for i in row["instances"] if i["category"] != "traffic light" and i["area"] >= 30]
    return sorted(i["score"] for i in found if i["score"] > (0.6 if i["category"] == "person" else least))


def test_an_export_has_the_classes_of_the_policy(labels, policy, tmp_path):
    document = json.loads((export(labels, tmp_path / "coco", policy=policy) / "labels.json").read_text())
    assert document["categories"] == [{"id": 1, "name": "thing"}]
    assert sorted(a["score"] for a in document["annotations"]) == pytest.approx(wanted(), abs=1e-6)
    # what comes after the policy has the new names
    document = json.loads(
        (export(labels, tmp_path / "all", policy=policy, classes=("thing",)) / "labels.json").read_text()
    )
    assert len(document["annotations"]) == len(wanted())
    with pytest.raises(UsageError, match="no class 'person' in this table; there are: thing"):
        export(labels, tmp_path / "none", policy=policy, classes=("person",))


def test_training_learns_the_classes_of_the_policy(labels, policy):
    data, _ = read_label_annotations(labels, 0.4, read_policy(policy))
    assert data.categories == {0: "thing"}
    assert sum(len(image.annotations) for image in data.images) == len(wanted(0.4))


def test_an_evaluation_compares_under_the_classes_of_the_policy(labels, policy, tmp_path: Path):
    """Against the labels themselves as ground truth, nothing that the policy drops counts as a miss."""
    truth = export(labels, tmp_path / "truth", policy=policy) / "labels.json"
    old = export(labels, tmp_path / "old") / "labels.json"
    numbers = {}
    for name, ground_truth in (("new names", truth), ("old names", old)):
        output = tmp_path / f"{name}.json"
        evaluate(EvaluateConfig(labels, str(ground_truth), policy=policy, output=str(output)))
        numbers[name] = json.loads(output.read_text())
        assert numbers[name]["counts"]["unknown_categories"] == {}
    scores = numbers["new names"]["scores"]["100"]["mask"]
    assert scores["ap"] == pytest.approx(1.0)
    assert list(scores["ap_by_class"]) == ["thing"]
    assert list(numbers["old names"]["scores"]["100"]["mask"]["ap_by_class"]) == ["thing"]


def test_a_report_counts_what_the_policy_takes(labels, policy):
    table = open_labels(labels).under(read_policy(policy))
    assert sorted(i.score for row in table.images() for i in row.instances) == pytest.approx(wanted())
    assert [row.image_id for row in table.images()] == [row["image_id"] for row in ROWS]


@pytest.mark.parametrize("scores", [(1.0, 0.5), (0.5, 0.25), (0.734, 0.73), (0.7345678, 0.7345677)])
def test_a_written_threshold_keeps_the_detection_that_it_stands_for(scores):
    """A policy leaves out scores that are no more than the threshold, so it must lie below the score."""
    stored = [float(np.float32(score)) for score in scores]
    curve = Curve(1, np.array(stored), np.array([1, 1]), np.array([1, 2]))
    written = float(yaml.safe_load(yaml.safe_dump(threshold_of(curve, None))))
    table = pa.Table.from_pylist(
        [row("a.png", (9, 9), [instance(np.ones((9, 9), bool), 0, s) for s in stored])], LABELS
    )
    made = Policy((CLASS_NAMES[0],), (ClassRule(CLASS_NAMES[0], "a", written, 0),))
    kept = [found["score"] for found in made.apply_to_table(table)["instances"][0].as_py()]
    assert kept == [stored[0]]
