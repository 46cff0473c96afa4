"""Policies: the file and its faults, and what a policy makes of a label table and of annotations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tables import CLASS_NAMES, random_rows, write_labels

from jobs.runtime.errors import UsageError
from jobs.table.policy import ClassRule, Policy
from jobs.table.policy_file import read_policy
from jobs.table.read import open_labels
from jobs.table.schema import LABELS
from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, Annotation
from yolact.config import COCO_CLASSES

NAMES = ("person", "car", "bus", "dog")


def policy(tmp_path: Path, text: str, names: tuple[str, ...] = NAMES, score_threshold: float | None = None) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return read_policy(str(path)).resolve(names, "this table", score_threshold)


def test_three_of_eighty_classes_are_one_line(tmp_path):
    found = policy(tmp_path, "keep: [person, car, dog]\n", COCO_CLASSES)
    assert found.class_names == ("person", "car", "dog")
    finite = [name for name, least in zip(COCO_CLASSES, found.class_thresholds(), strict=True) if least < 2]
    assert finite == ["person", "car", "dog"]


def test_every_key(tmp_path):
    text = """
drop: [dog]
rename: {person: human}
merge: {vehicle: [bus, car]}
score_threshold: 0.3
min_area: 20
classes:
  car: {score_threshold: 0.5}
  person: {min_area: 400}
"""
    found = policy(tmp_path, text)
    assert found.rules == (
        ClassRule("person", "human", 0.3, 400),
        ClassRule("car", "vehicle", 0.5, 20),
        ClassRule("bus", "vehicle", 0.3, 20),
    )
    assert found.class_names == ("human", "vehicle")
    assert found.class_thresholds() == (0.3, 0.5, 0.3, float("inf"))


def test_the_threshold_of_an_option_holds_where_the_file_has_none(tmp_path):
    text = "classes: {car: {score_threshold: 0.05}}\n"
    assert policy(tmp_path, text, score_threshold=0.15).class_thresholds() == (0.15, 0.05, 0.15, 0.15)


def test_the_policies_in_the_docs_are_policies(tmp_path):
    page = Path(__file__).resolve().parents[3] / "docs" / "policy.md"
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    assert [policy(tmp_path, block, COCO_CLASSES).class_names for block in blocks] == [
        ("person", "car", "dog"),
        ("human", "vehicle"),
    ]


def test_two_files_that_mean_the_same_are_the_same(tmp_path):
    one = policy(tmp_path, "keep: [car, person]\nscore_threshold: 0.5\n")
    other = policy(
        tmp_path, "drop: [bus, dog]\nclasses: {car: {score_threshold: 0.5}, person: {score_threshold: 5e-1}}\n"
    )
    assert one.to_json() == other.to_json()


def test_a_class_may_have_a_name_that_yaml_reads_as_something_else(tmp_path):
    assert policy(tmp_path, "keep: [no, 2:8]\n", ("no", "2:8", "yes")).class_names == ("no", "2:8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep: [persn]\n", "line 1: keep: this table has no class 'persn'; did you mean 'person'?"),
        ("keep: [person]\nclasses:\n  caar: {min_area: 2}\n", "line 3: classes.caar: the policy drops 'caar'"),
        (
            "classes:\n  caar: {min_area: 2}\n",
            "line 2: classes.caar: this table has no class 'caar'; did you mean 'car'?",
        ),
        ("merge: {vehicle: [car, buss]}\n", "merge.vehicle: this table has no class 'buss'; did you mean 'bus'?"),
        ("rename: {zebra: horse}\n", "no class 'zebra'; there are: person, car, bus, dog"),
        ("kep: [person]\n", "line 1: kep: a policy has no such key; did you mean 'keep'?"),
        ("classes: {car: {min_aera: 2}}\n", "classes.car.min_aera: a class has no such key; did you mean 'min_area'?"),
        ("keep: [car]\ndrop: [bus]\n", "drop: a policy has keep or drop, not both"),
        ("drop: [person, car, bus, dog]\n", "this policy drops every class of this table"),
        ("keep: []\n", "this policy drops every class of this table"),
        ("keep: person\n", "keep: must be a list, such as [one, two]"),
        ("keep: [car, car]\n", "'car' is given twice"),
        ("drop: [car]\nrename: {car: auto}\n", "the policy drops 'car'"),
        ("rename: {car: bus}\n", "'car' and 'bus' would both be 'bus'; to join them, write `merge: {bus: [car, bus]}`"),
        ("merge: {bus: [car]}\n", "'car' and 'bus' would both be 'bus'"),
        ("rename: {car: v}\nmerge: {v: [bus, car]}\n", "'car' has two new names, 'v' and 'v'"),
        ("score_threshold: 1.5\n", "score_threshold: must lie between 0 and 1, not 1.5"),
        ("score_threshold: .nan\n", "score_threshold: must lie between 0 and 1, not nan"),
        ("classes: {car: {min_area: -1}}\n", "classes.car.min_area: must be at least 0, not -1"),
        ("min_area: 1.5\n", "min_area: must be a whole number, not '1.5'"),
        ("", "the file is empty"),
        ("[", "not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_policy_is_one_line(text, message, tmp_path):
    with pytest.raises(UsageError) as caught:
        policy(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "policy.yaml") in str(caught.value)


def test_a_policy_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"policy .*none.yaml: there is no such file"):
        read_policy(str(tmp_path / "none.yaml"))


names = st.sampled_from(["person", "traffic light", CLASS_NAMES[2]])
rules = st.builds(
    ClassRule,
    source=names,
    name=st.sampled_from(["a", "b", "c"]),
    score_threshold=st.none() | st.floats(0, 1),
    min_area=st.integers(0, 2000),
)
ROWS = random_rows(60)


@pytest.mark.compute
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rules, min_size=1, unique_by=lambda rule: rule.source), st.integers(0, 59))
def test_rows_under_a_policy_are_those_of_a_plain_loop(found, begin):
    made = Policy(CLASS_NAMES, tuple(found))
    batch = pa.Table.from_pylist(ROWS, schema=LABELS).combine_chunks().to_batches()[0]
    # a slice, as a reader may get it
    rows = made.apply(batch.slice(begin)).to_pylist()
    by_source = {rule.source: rule for rule in found}
    expected = []
    for row in batch.slice(begin).to_pylist():
        instances = []
        for instance in row["instances"] or ():
            rule = by_source.get(instance["category"])
            if rule is None or instance["area"] < rule.min_area:
                continue
            if rule.score_threshold is not None and not np.float32(instance["score"]) > np.float32(
                rule.score_threshold
            ):
                continue
            instances.append({**instance, "category": rule.name, "label": made.class_names.index(rule.name)})
        expected.append({**row, "instances": None if row["instances"] is None else instances})
    assert rows == expected
    assert made.apply(batch).schema == batch.schema


def test_rows_without_instances_stay_what_they_are():
    made = Policy(("a",), (ClassRule("a", "b", 0.5, 0),))
    rows = [{**ROWS[0], "instances": None, "status": "missing"}, {**ROWS[0], "instances": []}]
    assert made.apply_to_table(pa.Table.from_pylist(rows, schema=LABELS)).to_pylist() == rows
    assert made.apply_to_table(LABELS.empty_table()) == LABELS.empty_table()


def test_a_table_is_read_under_a_policy_whatever_columns_are_asked_for(tmp_path):
    labels = write_labels(tmp_path / "out", [ROWS[:25], ROWS[25:]], row_group_size=7)
    (tmp_path / "policy.yaml").write_text("keep: [traffic light]\nscore_threshold: 0.5\n")
    table = open_labels(labels).under(read_policy(str(tmp_path / "policy.yaml")))
    assert table.class_names == ("traffic light",)
    found = [(i.label, i.category, i.score > 0.5) for row in table.images() for i in row.instances]
    wanted = [i for row in ROWS for i in row["instances"] if i["category"] == "traffic light" and i["score"] > 0.5]
    assert found == [(0, "traffic light", True)] * len(wanted)
    scores = [
        score.as_py()
        for piece in table.pieces(10)
        for batch in piece.batches(["image_id", "instances.score"])
        for row in batch.column("instances")
        for score in (entry["score"] for entry in row.values or ())
    ]
    assert len(scores) == len(wanted)
    assert next(b.schema.names for p in table.pieces() for b in p.batches(["image_id"])) == ["image_id"]


def test_a_single_file_tells_its_classes_itself(tmp_path):
    write_labels(tmp_path / "out", [ROWS])
    part = tmp_path / "part.parquet"
    (tmp_path / "out" / "labels" / "part-000000.parquet").rename(part)
    (tmp_path / "policy.yaml").write_text("keep: [persn]\n")
    with pytest.raises(UsageError, match="this table has no class 'persn'; did you mean 'person'"):
        open_labels(str(part)).under(read_policy(str(tmp_path / "policy.yaml")))


def truth() -> AnnotatedImages:
    annotations = tuple(Annotation(n, n, (0, 0, 2, 2), {}) for n in (1, 3, 5, 7))
    return AnnotatedImages(
        (AnnotatedImage(1, "a.png", 9, 9, annotations),), {1: "person", 3: "bus", 5: "car", 7: "zebra"}
    )


def test_a_ground_truth_gets_the_classes_of_the_policy(tmp_path):
    merged = policy(tmp_path, "merge: {vehicle: [car, bus]}\nrename: {person: human}\n").of_truth(truth())
    assert merged.categories == {1: "human", 3: "vehicle", 7: "zebra"}
    assert [a.category_id for a in merged.images[0].annotations] == [1, 3, 3, 7]
    kept = policy(tmp_path, "keep: [car]\n").of_truth(truth())
    assert kept.categories == {5: "car"}
    assert [a.annotation_id for a in kept.images[0].annotations] == [5]


def test_a_ground_truth_may_have_the_new_names_already(tmp_path):
    made = policy(tmp_path, "keep: [car, bus]\nmerge: {zebra: [car, bus]}\n")
    assert made.of_truth(truth()).categories == {3: "zebra"}
    assert [a.category_id for a in made.of_truth(truth()).images[0].annotations] == [3, 3, 3]
