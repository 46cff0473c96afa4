"""`yolact evaluate`: rows find their images, the numbers are right, and nothing is left out without a word."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from pycocotools import mask as rle_tools
from support.odd_annotations import BROKEN, BROKEN_IMAGES, MENDED, ODD_ID, REFUSED, Oddity
from support.tables import CLASS_NAMES, failed_row, instance, row, write_labels

from jobs.evaluate import run
from jobs.evaluate.options import EvaluateConfig
from jobs.runtime.errors import UsageError
from jobs.table.ground_truth import match_labels
from jobs.table.read import read_labels
from yolact.coco.reading import parse_coco

SIZE = (60, 80)


def square(x, y, side=12):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def truth(*names):
    """One image per name, each with a person at (10, 10) and a traffic light at (40, 20)."""
    annotations = []
    for image_id, _ in enumerate(names, start=500):
        for category, (x, y) in enumerate([(10, 10), (40, 20)]):
            rle = rle_tools.encode(np.asfortranarray(square(x, y).astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 7 * category + 1,
                    "bbox": [x, y, 12, 12],
                    "area": 144,
                    "iscrowd": 0,
                    "segmentation": {"size": list(SIZE), "counts": rle["counts"].decode()},
                }
            )
    return {
        "images": [
            {"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for image_id, name in enumerate(names, start=500)
        ],
        "categories": [{"id": 7 * i + 1, "name": name} for i, name in enumerate(CLASS_NAMES[:2])],
        "annotations": annotations,
    }


def perfect(image_id):
    return row(image_id, SIZE, [instance(square(10, 10), 0, 0.9), instance(square(40, 20), 1, 0.8)])


@pytest.fixture
def evaluate(tmp_path, capsys):
    def run_it(rows, names, **options):
        write_labels(tmp_path / "out", [rows])
        (tmp_path / "truth.json").write_text(json.dumps(truth(*names)))
        written = str(tmp_path / "scores.json")
        config = EvaluateConfig(
            str(tmp_path / "out"), ground_truth=str(tmp_path / "truth.json"), output=written, **options
        )
        assert run(config) == 0
        return json.loads((tmp_path / "scores.json").read_text()), capsys.readouterr().out

    return run_it


def test_perfect_labels_score_a_hundred(evaluate):
    rows = [perfect("s3://lake/x/a.jpg"), perfect("s3://lake/b.tar#deep/b.jpg")]
    scores, printed = evaluate(rows, ["a.jpg", "b.jpg"])
    assert scores["scores"]["100"]["mask"]["ap"] == pytest.approx(1)
    assert scores["scores"]["100"]["box"]["ap"] == pytest.approx(1)
    assert "2 of 2 ground-truth images are labelled" in printed
    assert "AP at IoU 0.95" in printed
    assert "traffic light" not in printed


def test_limits_and_classes_on_demand(evaluate):
    scores, printed = evaluate([perfect("a.jpg")], ["a.jpg"], max_detections=(100, 500), per_class=True)
    assert set(scores["scores"]) == {"100", "500"}
    assert "at most 500 detections" in printed
    # the AP of the class for each limit, and its best F1
    assert printed.count("traffic light") == 3


def test_missing_and_failed_images_count_as_empty_and_are_told(evaluate):
    rows = [perfect("lake/a.jpg"), failed_row("lake/b.jpg"), row("lake/c.jpg", (61, 80), [])]
    scores, printed = evaluate(rows, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    assert scores["scores"]["100"]["mask"]["ap"] == pytest.approx(0.25, abs=0.01)
    assert scores["counts"]["missing"] == ["d.jpg"]
    assert "1 of 4 ground-truth images are labelled" in printed
    assert "1 are missing from the labels and count as empty: d.jpg" in printed
    assert "1 have status 'undecodable'" in printed
    assert "1 have another size in the labels and count as empty: c.jpg" in printed


def test_images_annotated_before_their_exif_turn_are_told(evaluate):
    turned = row("lake/b.jpg", SIZE[::-1], [])
    scores, printed = evaluate([perfect("lake/a.jpg"), turned], ["a.jpg", "b.jpg"])
    assert (scores["counts"]["other_size"], scores["counts"]["turned"]) == (["b.jpg"], 1)
    assert "1 of these have height and width swapped" in printed


def test_strangers_are_left_out_and_told(evaluate):
    odd = row("lake/a.jpg", SIZE, [instance(square(10, 10), 0, 0.9), instance(square(1, 1), 2, 0.95)])
    scores, printed = evaluate([odd, perfect("lake/other.jpg")], ["a.jpg"])
    assert scores["counts"]["unknown_images"] == 1
    assert "1 labelled images are not in the ground truth" in printed
    assert f"1 instances of category {CLASS_NAMES[2]!r}" in printed
    assert scores["scores"]["100"]["mask"]["ap_by_class"]["person"] == pytest.approx(1)


def test_names_with_folders_match_by_their_whole_path(tmp_path):
    data = parse_coco(truth("day/1.jpg", "night/1.jpg"))
    write_labels(tmp_path / "out", [[perfect("s3://lake/night/1.jpg"), perfect("s3://lake/day/1.jpg")]])
    matched = match_labels(read_labels(str(tmp_path / "out")), data)
    assert matched.counts.labelled == 2
    assert {d.image_id for d in matched.detections} == {500, 501}


def test_two_rows_for_one_image_are_refused(tmp_path):
    write_labels(tmp_path / "out", [[perfect("s3://one/a.jpg"), perfect("s3://two/a.jpg")]])
    with pytest.raises(UsageError, match=r"s3://one/a\.jpg and s3://two/a\.jpg both match a\.jpg"):
        match_labels(read_labels(str(tmp_path / "out")), parse_coco(truth("a.jpg")))


@pytest.mark.parametrize("change", [{"mask": b"o" * 999}, {"mask": b""}, {"score": float("nan")}, {"mask": b"\xff"}])
def test_a_damaged_table_is_one_line(tmp_path, change):
    damaged = {**instance(square(10, 10), 0, 0.9), **change}
    write_labels(tmp_path / "out", [[row("a.jpg", SIZE, [damaged])]])
    with pytest.raises(UsageError, match=r"of a\.jpg .*has .*: the label table is damaged"):
        match_labels(read_labels(str(tmp_path / "out")), parse_coco(truth("a.jpg")))


def test_limits_that_coco_cannot_use_are_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="--max-detections"):
        run(EvaluateConfig(str(tmp_path), ground_truth="truth.json", max_detections=(10,)))
    with pytest.raises(UsageError, match="no annotation file"):
        run(EvaluateConfig(str(tmp_path), ground_truth=str(tmp_path / "truth.json")))
    with pytest.raises(UsageError, match="Is a directory"):
        run(EvaluateConfig(str(tmp_path), ground_truth=str(tmp_path)))


def by_name(oddities):
    return pytest.mark.parametrize("oddity", oddities, ids=lambda oddity: oddity.name)


@pytest.fixture
def evaluate_odd(tmp_path, capsys):
    """Evaluate labels that are right for the good file against an odd one; mask AP and what stands on stderr."""

    def run_it(oddity, **options):
        rows = [perfect("lake/a.png"), row("lake/b.png", SIZE, [instance(square(10, 10), 0, 0.9)])]
        write_labels(tmp_path / "out", [rows])
        (tmp_path / "odd.json").write_bytes(oddity.text())
        output = tmp_path / "scores.json"
        config = EvaluateConfig(
            str(tmp_path / "out"), ground_truth=str(tmp_path / "odd.json"), output=str(output), **options
        )
        assert run(config) == 0
        return json.loads(output.read_text())["scores"]["100"]["mask"]["ap"], capsys.readouterr().err

    return run_it


@pytest.mark.compute
@by_name([Oddity("as it should be", lambda _: None), *(o for o in MENDED if o.name != "category names as numbers")])
def test_an_odd_file_scores_like_the_good_one(evaluate_odd, oddity):
    ap, _ = evaluate_odd(oddity)
    assert ap == pytest.approx(1)


@pytest.mark.compute
@by_name([*BROKEN, *BROKEN_IMAGES])
def test_broken_ground_truth_is_refused_with_its_id_or_left_out(evaluate_odd, tmp_path, oddity):
    with pytest.raises(UsageError, match=r"the ground truth has .* broken annotations or images, such as: ") as caught:
        evaluate_odd(oddity)
    assert oddity in BROKEN_IMAGES or f"annotation {ODD_ID} of image " in str(caught.value)
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "out")
    ap, told = evaluate_odd(oddity, skip_broken=True)
    assert 0 < ap <= 1
    assert re.search(oddity.problem, told)


@by_name(REFUSED)
def test_other_files_are_refused_in_one_line(evaluate_odd, oddity):
    with pytest.raises(UsageError, match=oddity.refused) as caught:
        evaluate_odd(oddity)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crowds", [0, 1])
def test_a_ground_truth_without_objects_is_refused(evaluate_odd, crowds):
    def change(content):
        content["annotations"] = [{**entry, "iscrowd": 1} for entry in content["annotations"]] if crowds else []

    with pytest.raises(UsageError, match=f"no objects to compare with: 2 images, {3 * crowds} crowd regions"):
        evaluate_odd(Oddity("no objects", change))


def test_the_file_may_name_its_images_as_other_disks_do(evaluate_odd):
    def change(content):
        content["images"][0]["file_name"] = "C:\\set\\a.png"
        content["images"][1]["file_name"] = "https://host/set/b.png?version=2"

    ap, _ = evaluate_odd(Oddity("other disks", change))
    assert ap == pytest.approx(1)
