"""What `yolact report` counts, samples and flags, and that its page is self-contained and inert."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from support.report_pages import HOSTILE, page_data, rows_with_images
from support.tables import CLASS_NAMES, failed_row, random_rows, row, write_labels

from jobs.report import run
from jobs.report.building import build_report, make_picks
from jobs.report.options import ReportConfig
from jobs.report.page import inert_json
from jobs.report.review import Found, Reviewer, overlapping_pairs, touching_border, worst
from jobs.report.sampling import Sampler, allocate
from jobs.report.statistics import NUMBER_COLUMNS, Numbers, numbers_of_batch
from jobs.runtime.errors import EXIT_OK, UsageError
from jobs.table.read import open_labels, read_labels


def numbers_of(output: str, rows_per_piece: int = 1000, batch_rows: int = 1000) -> Numbers:
    numbers = Numbers()
    for piece in open_labels(output).pieces(rows_per_piece):
        for batch in piece.batches(NUMBER_COLUMNS, batch_rows):
            numbers.add(numbers_of_batch(batch))
    return numbers


@pytest.fixture
def output(tmp_path):
    rows = random_rows(60, root="/nowhere/lake/")
    return write_labels(tmp_path / "out", [rows[:25], rows[25:]], row_group_size=10)


@pytest.mark.parametrize(("rows_per_piece", "batch_rows"), [(1000, 1000), (7, 3)])
def test_numbers_are_those_of_a_plain_count(output, rows_per_piece, batch_rows):
    numbers = numbers_of(output, rows_per_piece, batch_rows)
    images = list(read_labels(output))
    found = [i for image in images for i in image.instances]
    assert numbers.images == len(images)
    assert numbers.statuses == Counter(image.status for image in images)
    assert numbers.instances == len(found)
    assert numbers.per_image[2] == sum(len(image.instances) == 2 for image in images if image.ok)
    assert numbers.per_image.sum() == numbers.ok
    assert numbers.areas[8] == sum(256 <= i.area < 512 for i in found)
    assert numbers.scores[19] == sum(i.score >= 0.95 for i in found)
    for label, of_class in numbers.classes.items():
        mine = [i for i in found if i.label == label]
        assert of_class.name == CLASS_NAMES[label]
        assert of_class.instances == len(mine) == of_class.sizes.sum()
        assert of_class.mean_score == pytest.approx(np.mean([i.score for i in mine]))
        assert of_class.images == sum(any(i.label == label for i in image.instances) for image in images)
    [(reason, failures)] = numbers.failures.items()
    assert reason == ("undecodable", "truncated file")
    assert failures.count == sum(not image.ok for image in images)
    assert failures.examples == [image.image_id for image in images if not image.ok][:5]


def test_allocation_favours_small_strata_and_never_exceeds_them():
    sizes = {"person": 10_000, "dog": 100, "cat": 1, "undecodable": 2}
    shares = allocate(sizes, 100)
    assert sum(shares.values()) == 100
    assert shares["cat"] == 1
    assert shares["undecodable"] == 2
    assert shares["dog"] > 100 * 100 / 10_103
    assert allocate(sizes, 2) == {"person": 1, "dog": 1, "cat": 0, "undecodable": 0}
    assert allocate(sizes, 10**6) == sizes
    assert allocate({}, 5) == {}


@pytest.mark.parametrize("rows_per_piece", [7, 1000])
def test_the_sample_depends_on_the_seed_and_not_on_the_pieces(output, rows_per_piece):
    def sample(seed: int, rows_per_piece: int) -> list[str]:
        sampler, ids = Sampler(20, seed), {}
        for number, piece in enumerate(open_labels(output).pieces(rows_per_piece)):
            mine, first = Sampler(20, seed), 0
            for batch in piece.batches(NUMBER_COLUMNS, 5):
                mine.add_batch(batch, number, first)
                ids |= {(number, first + i): name for i, name in enumerate(batch["image_id"].to_pylist())}
                first += batch.num_rows
            sampler.add(mine)
        return [ids[c.piece, c.row] for candidates in sampler.chosen().values() for c in candidates]

    chosen = sample(0, rows_per_piece)
    assert len(chosen) == len(set(chosen)) == 20
    assert chosen == sample(0, 13)
    assert chosen != sample(1, rows_per_piece)
    statuses = {image.image_id: image.status for image in read_labels(output)}
    assert any(statuses[image_id] != "ok" for image_id in chosen)


def found(boxes, labels=None, scores=None, areas=None, size=(100, 100)) -> Found:
    count = len(boxes)
    return Found(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels or [0] * count),
        names=["person"] * count,
        scores=np.array(scores or [0.9] * count, np.float32),
        areas=np.array(areas or [100] * count),
        height=size[0],
        width=size[1],
    )


def test_what_makes_an_image_worrying():
    quiet = Reviewer({0: (np.log2(100 / 10_000), 0.5)}, max_detections=3)
    assert quiet.judge(found([[20, 20, 10, 10]])) == (0, ())
    assert quiet.judge(found([[20, 20, 10, 10]], scores=[0.25]))[1] == ("score as low as 0.25",)
    assert quiet.judge(found([[20, 20, 10, 10], [20, 20, 10, 11]]))[1] == ("1 overlapping pair",)
    assert quiet.judge(found([[20, 20, 60, 60]], areas=[3600]))[1] == ("unusually large person",)
    assert quiet.judge(found([[20, 20, 2, 2]], areas=[1]))[1] == ("unusually small person",)
    assert quiet.judge(found([[0, 20, 10, 10]]))[1] == ("1 cut by the edge",)
    assert quiet.judge(found([[20, 20, 5, 5], [40, 40, 5, 5], [60, 60, 5, 5]]))[1] == ("list is full at 3",)
    worry, reasons = quiet.judge(found([[0, 0, 10, 10], [0, 0, 10, 10]], scores=[0.9, 0.05]))
    assert reasons[0] == "score as low as 0.05"
    assert worry == pytest.approx(0.9 + 0.2 + 0.3)


def test_overlap_and_border_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [5, 0, 10, 10], [30, 30, 0, 0]], float)
    assert overlapping_pairs(boxes) == 1
    assert touching_border(boxes, 40, 40) == 3
    assert touching_border(np.array([[30.0, 5, 9.5, 5]]), 40, 40) == 1


def test_the_review_queue_is_the_worst_of_the_whole_table(output, local_ray):
    config = ReportConfig(output, "report.html", samples=0, review=5, rows_per_task=10**9, address="local")
    content = build_report(open_labels(output), config, None)
    reviewer = Reviewer(content.numbers.size_medians(), None)
    suspects = []
    for number, piece in enumerate(open_labels(output).pieces(10**9)):
        row = 0
        for batch in piece.batches(NUMBER_COLUMNS, 10**6):
            suspects += reviewer.judge_batch(batch, number, row)
            row += batch.num_rows
    ids = [image.image_id for image in read_labels(output)]
    expected = [ids[25 * suspect.piece + suspect.row] for suspect in worst(suspects, 5)]
    queue = sorted((card for card in content.cards), key=lambda card: card["reviewed"])
    assert [card["id"] for card in queue] == expected
    assert all(card["reasons"] for card in queue)
    assert make_picks({}, []) == {}


def test_an_image_in_sample_and_queue_is_shown_once(tmp_path):
    rows = rows_with_images(tmp_path / "lake", 8)
    output = write_labels(tmp_path / "out", [rows])
    page = tmp_path / "report.html"
    assert run(ReportConfig(output, str(page), samples=100, review=3)) == EXIT_OK
    cards = page_data(page)["cards"]
    assert sorted(card["id"] for card in cards) == sorted(r["image_id"] for r in rows)
    assert sorted(card["sampled"] for card in cards) == list(range(8))
    assert sum(card["reviewed"] is not None for card in cards) <= 3
    assert all(card["image"].startswith("data:image/webp;base64,") for card in cards)


def test_the_page_reaches_for_nothing_and_hostile_names_stay_text(tmp_path):
    rows = rows_with_images(tmp_path / "lake", 2)
    for r in rows:
        r["instances"][0]["category"] = HOSTILE
        r["instances"] = r["instances"][:1]
    rows += [failed_row("s3://lake/" + HOSTILE, HOSTILE) | {"error": HOSTILE}]
    page = tmp_path / "report.html"
    run(ReportConfig(write_labels(tmp_path / "out", [rows]), str(page)))
    text = page.read_text()
    assert "<img src=x" not in text
    assert "<svg onload" not in text
    # one block of data, one script; nothing else could run
    assert len(re.findall(r"<script\b", text)) == len(re.findall("</script>", text)) == 2
    assert not re.findall(r'(?:src|href)="(?!#|data:|{)[^"]', text)
    assert "default-src 'none'" in text
    card = next(card for card in page_data(page)["cards"] if card["status"] != "ok")
    assert card["id"] == "s3://lake/" + HOSTILE


def test_json_in_html_cannot_be_closed_from_within():
    value = {"</script>": "<!-- & \u2028 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")}
    text = inert_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


@pytest.mark.compute
def test_ground_truth_marks_mistakes_and_gives_ap(tmp_path):
    from jobs.export import run as export
    from jobs.export.options import ExportConfig

    rows = rows_with_images(tmp_path / "lake", 6)
    output = write_labels(tmp_path / "out", [rows])
    truth = tmp_path / "truth.json"
    export(ExportConfig(output, str(truth)))
    document = json.loads(truth.read_text())
    # an object that no detection has, and a detection whose object is gone
    first, second = document["images"][0], document["images"][1]
    extra = dict(next(a for a in document["annotations"] if a["image_id"] == first["id"]))
    extra |= {"id": 999, "category_id": 3}
    gone = [a for a in document["annotations"] if a["image_id"] == second["id"]]
    document["annotations"] = [a for a in document["annotations"] if a not in gone] + [extra]
    truth.write_text(json.dumps(document))
    page = tmp_path / "report.html"
    run(ReportConfig(output, str(page), ground_truth=str(truth)))
    cards = {card["id"]: card for card in page_data(page)["cards"]}
    missed = {card["id"]: [m["name"] for m in card["missed"]] for card in cards.values() if card["missed"]}
    assert missed == {rows[0]["image_id"]: [CLASS_NAMES[2]]}
    wrong = {card["id"] for card in cards.values() if any(i["wrong"] for i in card["instances"])}
    assert wrong == {rows[1]["image_id"]}
    assert "AP50" in page.read_text()


def test_tables_with_nothing_to_show(tmp_path):
    for name, rows in {"empty": [], "failed": [failed_row("a.jpg")], "blank": [row("b.jpg", (3, 4), [])]}.items():
        page = tmp_path / f"{name}.html"
        assert run(ReportConfig(write_labels(tmp_path / name, [rows]), str(page))) == EXIT_OK
        assert len(page_data(page)["cards"]) == len(rows)
    # the image of "blank" is not there: the page says so and stands
    assert "could not be read from the lake" in (tmp_path / "blank.html").read_text()


def test_pieces_on_ray_give_the_same_page(tmp_path, local_ray):
    rows = rows_with_images(tmp_path / "lake", 12)
    output = write_labels(tmp_path / "out", [rows], row_group_size=5)
    for name, rows_per_task in (("whole", 10**9), ("pieces", 5)):
        run(ReportConfig(output, str(tmp_path / f"{name}.html"), samples=6, rows_per_task=rows_per_task))
    whole, pieces = (page_data(tmp_path / f"{name}.html") for name in ("whole", "pieces"))
    assert sorted(whole["cards"], key=lambda c: c["id"]) == sorted(pieces["cards"], key=lambda c: c["id"])
    assert whole["classes"] == pieces["classes"]


def test_usage_errors(output, tmp_path):
    with pytest.raises(UsageError, match="--samples -1"):
        run(ReportConfig(output, str(tmp_path / "r.html"), samples=-1))
    with pytest.raises(UsageError, match="--config or --weights"):
        run(ReportConfig(output, str(tmp_path / "r.html"), prototypes=2))
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(UsageError, match="is not a COCO"):
        run(ReportConfig(output, str(tmp_path / "r.html"), ground_truth=str(tmp_path / "truth.json")))
