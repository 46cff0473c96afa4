"""Curves and policies of `yolact evaluate`: what is printed, what the JSON holds, what a policy keeps."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import yaml
from pycocotools import mask as rle_tools
from support.detections import NAMES, UNUSED, drawn_truth, imperfect_detections
from support.tables import row, write_labels

from jobs.evaluate import run
from jobs.evaluate.options import EvaluateConfig
from jobs.evaluate.policy import LEAST_OBJECTS, policy_of, policy_yaml
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import match_labels
from jobs.table.policy_file import read_policy
from jobs.table.read import open_labels, read_labels
from yolact.coco.curves import curve
from yolact.coco.evaluation import evaluate_and_match
from yolact.coco.quality import measure_quality
from yolact.coco.reading import parse_coco

TRUTH = drawn_truth(1, images=40)
IDS = {category["name"]: category["id"] for category in TRUTH["categories"]}


def table_rows(truth, detections):
    """Label rows of all images of a ground truth."""
    names = {category_id: name for name, category_id in IDS.items()}
    rows = []
    for image in truth["images"]:
        found = [
            {
                "label": (*NAMES, UNUSED).index(names[d.category_id]),
                "category": names[d.category_id],
                "score": d.score,
                "mask_score": None,
                "bbox": list(d.bbox),
                "area": int(rle_tools.area(d.mask)),
                "mask": d.mask["counts"].encode(),
            }
            for d in detections
            if d.image_id == image["id"]
        ]
        rows.append(row(f"lake/{image['file_name']}", (image["height"], image["width"]), found))
    return rows


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table") / "out"
    written = write_labels(folder, [table_rows(TRUTH, imperfect_detections(TRUTH, 2))])
    (folder / "run.json").write_text(json.dumps({"class_names": [*NAMES, UNUSED], "schema_version": 1}))
    return written


@pytest.fixture(scope="module")
def quality(labels):
    matched = match_labels(read_labels(labels), parse_coco(TRUTH))
    return measure_quality(TRUTH, matched.detections, evaluate_and_match(TRUTH, matched.detections))


@pytest.fixture
def evaluate(labels, tmp_path, capsys):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))

    def run_it(**options):
        assert run(EvaluateConfig(labels, str(tmp_path / "truth.json"), **options)) == 0
        return capsys.readouterr().out

    return run_it


@pytest.mark.compute
def test_a_summary_is_printed(evaluate, quality):
    printed = evaluate()
    best = quality.whole.half.best_f1()
    assert f"{best.score:.3f}" in printed
    assert f"{100 * best.f1:.2f}" in printed
    assert "a score differs from the share of right masks by" in printed
    assert "taken for another class at score" in printed
    assert "all: at the score" not in printed
    assert "dog: best F1" not in printed
    chosen = evaluate(score_threshold=0.7, per_class=True)
    at = quality.whole.half.at(0.7)
    [line] = [line for line in chosen.splitlines() if line.startswith("all: at the score")]
    assert line.split()[-4:] == [f"{100 * v:.2f}" for v in (at.precision, at.recall, at.f1)] + [
        str(quality.whole.objects)
    ]
    assert "dog: best F1" in chosen
    assert [line.split()[-5:] for line in chosen.splitlines() if line.startswith(f"{UNUSED}: best")] == [
        ["—"] * 4 + ["0"]
    ]


@pytest.mark.compute
def test_the_json_holds_every_curve(evaluate, quality, tmp_path):
    evaluate(output=str(tmp_path / "scores.json"), max_detections=(100, 50), score_threshold=0.6)
    written = json.loads((tmp_path / "scores.json").read_text())
    curves = written["curves"]
    assert curves["max_detections"] == 100
    assert list(curves["classes"]) == [*NAMES, UNUSED]
    assert len(curves["iou"]) == 10
    for name, one in {**quality.classes, "all": quality.whole}.items():
        found = curves["all"] if name == "all" else curves["classes"][name]
        assert (found["objects"], found["detections"]) == (one.objects, one.detections)
        for iou, expected in zip(curves["iou"], one.curves, strict=True):
            best = expected.best_f1()
            assert found["best_f1"][iou] == (None if best is None else asdict(best))
            assert found["at_score"][iou] == asdict(expected.at(0.6))
            assert found["precision"][iou] == pytest.approx(expected.over_recall()[0], abs=1e-6)
            assert len(found["score"][iou]) == len(curves["recall"]) == 101
        assert found["calibration"]["share_right"] == one.calibration.share_right.tolist()
    assert curves["confusion"]["names"] == [*NAMES, UNUSED]
    assert curves["confusion"]["score"] == curves["score"] == 0.6


def kept(labels, policy, name):
    """Scores of the instances of a class that a policy file leaves, as every command reads it."""
    rows = open_labels(labels).under(read_policy(str(policy))).images()
    return sorted(i.score for r in rows for i in r.instances if i.category == name)


@pytest.mark.compute
def test_a_policy_keeps_what_has_the_best_f1(evaluate, labels, quality, tmp_path):
    printed = evaluate(write_policy=str(tmp_path / "policy.yaml"))
    policy = yaml.safe_load((tmp_path / "policy.yaml").read_text())
    assert set(policy) == {"score_threshold", "classes"}
    assert policy["score_threshold"] == pytest.approx(quality.whole.half.best_f1().score, abs=0.01)
    enough = [name for name, one in quality.classes.items() if one.objects >= LEAST_OBJECTS]
    assert list(policy["classes"]) == enough
    assert 0 < len(enough) < len(quality.classes)
    for name in enough:
        found = quality.classes[name].half
        assert kept(labels, tmp_path / "policy.yaml", name) == sorted(
            i.score
            for r in read_labels(labels)
            for i in r.instances
            if i.category == name and i.score >= found.best_f1().score
        )
    assert f"wrote {tmp_path / 'policy.yaml'}" in printed


@pytest.mark.compute
def test_a_policy_has_the_wanted_precision(evaluate, quality, tmp_path):
    evaluate(write_policy=str(tmp_path / "policy.yaml"), wanted_precision=0.75)
    policy = yaml.safe_load((tmp_path / "policy.yaml").read_text())
    for name, of_class in policy["classes"].items():
        found = quality.classes[name].half
        assert found.at(of_class["score_threshold"]).precision >= 0.75
        # the next lower score of a detection has less
        lower = found.scores[found.scores < of_class["score_threshold"]]
        assert (found.precision[found.scores <= (lower[0] if len(lower) else -1)] < 0.75).all()


def without_right_ones(quality, name):
    """The same quality with a class none of whose detections is right."""
    never = quality.classes[name].half
    nothing = curve_of(never.objects, never.scores)
    one = quality.classes[name].__class__((nothing,) * 10, quality.classes[name].calibration)
    return quality.__class__(
        quality.ious, {**quality.classes, name: one}, quality.whole, quality.score, quality.confusion
    )


def curve_of(objects, scores):
    from yolact.coco.curves import ClassMatches

    none = np.zeros((1, len(scores)), bool)
    return curve(ClassMatches(objects, scores, none, none), 0)


@pytest.mark.compute
def test_a_class_that_never_has_the_precision_is_dropped(quality):
    changed = without_right_ones(quality, "dog")
    policy = policy_of(changed, 0.8)
    assert policy["drop"] == ["dog"]
    assert "dog" not in policy["classes"]
    # without a wanted precision nothing says that it should go: the threshold of all classes applies
    assert "drop" not in policy_of(changed, None)


@pytest.mark.compute
def test_only_classes_with_the_precision_are_kept_where_all_together_never_have_it(quality):
    highest = {name: one.half.precision.max(initial=0) for name, one in quality.classes.items() if one.objects >= 10}
    best = max(highest.values())
    assert best > quality.whole.half.precision.max()
    policy = policy_of(quality, best)
    assert policy["keep"] == list(policy["classes"]) == [name for name, value in highest.items() if value == best]
    assert "score_threshold" not in policy


@pytest.mark.compute
def test_a_policy_starts_with_where_it_comes_from(quality):
    text = policy_yaml(policy_of(quality, None), "s3://lake/truth\n.json", None)
    assert text.startswith(
        "# score thresholds of yolact evaluate: best F1, masks at IoU 0.50, against s3://lake/truth .json\n"
    )
    assert yaml.safe_load(text) == policy_of(quality, None)


@pytest.mark.compute
def test_mistakes_are_bad_usage(evaluate, labels, tmp_path):
    with pytest.raises(UsageError, match=r"--wanted-precision 0\.9: name the policy file"):
        evaluate(wanted_precision=0.9)
    for name in ("score_threshold", "wanted_precision"):
        with pytest.raises(UsageError, match=r"1\.5: must lie between 0 and 1"):
            evaluate(write_policy=str(tmp_path / "p.yaml"), **{name: 1.5})
    nothing = write_labels(tmp_path / "nothing", [table_rows(TRUTH, [])])
    for options in ({}, {"wanted_precision": 0.5}):
        config = EvaluateConfig(nothing, str(tmp_path / "truth.json"), write_policy=str(tmp_path / "p.yaml"), **options)
        with pytest.raises(UsageError, match=r"no detection has an object|no score threshold gives it"):
            run(config)
    assert not (tmp_path / "p.yaml").exists()
