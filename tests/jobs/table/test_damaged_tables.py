"""Label tables that were edited or damaged after they were written: every command says so in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import run_commands
from support.tables import instance, row, write_labels

from jobs.export.formats import FORMATS
from jobs.runtime.errors import EXIT_USAGE, UsageError
from jobs.table.read import open_labels, read_columns, read_labels

HEIGHT, WIDTH = 30, 40


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + 8, left : left + 8] = True
    return mask


def table(folder: Path, changed_row: dict[str, Any] | None = None, **changes: Any) -> str:
    """An OUTPUT of two images, two instances each; `changes` are made to the first instance of the second image."""
    rows = [
        row(f"lake/{name}.png", (HEIGHT, WIDTH), [instance(square(4, 4), 0, 0.9), instance(square(12, 20), 1, 0.5)])
        for name in "ab"
    ]
    rows[1]["instances"][0].update(changes)
    rows[1].update(changed_row or {})
    return write_labels(folder, [rows])


#: COCO's compressed counts of one run: 1,064 pixels of an image of 1,200
TOO_SHORT = b"XQ1"
MASKS = {
    "too many pixels": b"l^1",
    "too few pixels": TOO_SHORT,
    "a run far below 0": b"P" * 6 + b"@",
    "garbage": b"\x00\xff garbage \x7f",
    "no end": b"oooooooooooooooooooooooo",
    "empty": b"",
    "null": None,
}


def commands(labels: str, folder: Path) -> Iterator[list[str]]:
    """Every command that hands the masks of a table to C code; `train --check` stops before it reads an image."""
    for format in FORMATS:
        for segmentation in ("rle", "polygons"):
            if (format, segmentation) != ("coco-results", "polygons"):
                yield [
                    *("export", labels, "--output", str(folder / f"{format}-{segmentation}"), "--format", format),
                    *("--segmentation", segmentation, "--pictures", "leave"),
                ]
    yield ["report", labels, "--output", str(folder / "report.html")]
    truth = str(folder / "truth.json")
    yield ["report", labels, "--output", str(folder / "report.html"), "--ground-truth", truth]
    yield ["evaluate", labels, "--ground-truth", truth]
    yield ["train", "--annotations", labels, "--output", str(folder / "trained"), "--config", "nuclei", "--check"]


def write_truth(folder: Path) -> None:
    box = [4, 4, 8, 8]
    polygon = [[4, 4, 12, 4, 12, 12, 4, 12]]
    names = ("person", "traffic light")
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH} for n, name in enumerate("ab")
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n,
                "category_id": 1,
                "bbox": box,
                "segmentation": polygon,
                "area": 64,
                "iscrowd": 0,
            }
            for n in range(2)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(content))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_a_mask_that_is_none_is_one_line_for_every_command(tmp_path, mask):
    write_truth(tmp_path)
    asked = list(commands(table(tmp_path / "out", mask=mask), tmp_path))
    for command, answer in zip(asked, run_commands(asked), strict=True):
        last = answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else ""
        assert answer.code == EXIT_USAGE, (command, answer)
        assert "lake/b.png" in last, (command, answer)
        assert "Traceback" not in answer.stderr


def test_reading_names_image_and_instance_of_a_bad_mask(tmp_path):
    _, bad = read_labels(table(tmp_path / "out", mask=TOO_SHORT))
    assert bad.instances[1].mask().sum() == 64
    message = r"instance 0 of lake/b\.png has an RLE of 1064 pixels in an image of 1200: the label table is damaged"
    with pytest.raises(UsageError, match=message):
        bad.instances[0].mask()
    with pytest.raises(UsageError, match=message):
        bad.instances[0].rle  # noqa: B018 - reading it is what must fail


#: what is changed in the first instance of b.png, or in its row; and what the message says
VALUES = {
    "no label": ({"label": None}, "an instance without label"),
    "no score": ({"score": None}, "an instance without score"),
    "no category": ({"category": None}, "an instance without category"),
    "no area": ({"area": None}, "an instance without area"),
    "no box": ({"bbox": None}, "an instance without bbox"),
    "no number in a box": ({"bbox": [1.0, None, 2.0, 3.0]}, "a box that is not four finite numbers"),
    "infinite box": ({"bbox": [1.0, float("inf"), 2.0, 3.0]}, "a box that is not four finite numbers"),
    "a score of no number": ({"score": float("nan")}, "a score that is not from 0 to 1"),
    "a score below 0": ({"score": -0.5}, "a score that is not from 0 to 1"),
    "a mask score of no number": ({"mask_score": float("nan")}, "a mask score that is not a finite number"),
    "a label below 0": ({"label": -1}, "a label that is not from 0 to 65535"),
    "a label out of reach": ({"label": 2**31 - 1}, "a label that is not from 0 to 65535"),
    "an area below 0": ({"area": -5}, "an instance with an area below 0"),
}
ROWS = {
    "no height": ({"height": None}, "status ok and a height that is not above 0"),
    "a width of 0": ({"width": 0}, "status ok and a width that is not above 0"),
    "no status": ({"status": None}, "no status"),
    "no uri": ({"uri": None}, "no uri"),
}


@pytest.mark.parametrize(("change", "message"), VALUES.values(), ids=VALUES.keys())
def test_a_value_that_no_label_job_writes_names_its_image(tmp_path, change, message):
    labels = table(tmp_path / "out", **change)
    with pytest.raises(UsageError, match=rf"the row of lake/b\.png in .* has {message}: the label table is damaged"):
        list(read_labels(labels))


@pytest.mark.parametrize(("change", "message"), ROWS.values(), ids=ROWS.keys())
def test_a_row_that_no_label_job_writes_is_named(tmp_path, change, message):
    labels = table(tmp_path / "out", change)
    with pytest.raises(UsageError, match=rf"the row of lake/b\.png in .* has {message}: the label table is damaged"):
        list(read_labels(labels))


def test_a_row_without_id_is_named_by_its_number(tmp_path):
    labels = table(tmp_path / "out", {"image_id": None})
    with pytest.raises(
        UsageError, match=r"row 1 of .*part-000000\.parquet has no image_id: the label table is damaged"
    ):
        list(read_labels(labels))


def test_a_value_is_told_by_every_command(tmp_path):
    write_truth(tmp_path)
    asked = list(commands(table(tmp_path / "out", label=None), tmp_path))
    for command, answer in zip(asked, run_commands(asked), strict=True):
        assert answer.code == EXIT_USAGE, (command, answer)
        assert "Traceback" not in answer.stderr


def test_columns_are_checked_too(tmp_path):
    labels = table(tmp_path / "out", score=None)
    assert read_columns(labels, ["image_id", "instances.label"]).num_rows == 2
    with pytest.raises(UsageError, match="an instance without score"):
        read_columns(labels, ["instances.score"])


def test_pages_that_cannot_be_read_are_one_line(tmp_path):
    labels = table(tmp_path / "out")
    (part,) = open_labels(labels).files
    data = bytearray(Path(part).read_bytes())
    data[4:400] = bytes(396)
    Path(part).write_bytes(data)
    with pytest.raises(UsageError, match=r"part-000000\.parquet: .*: the label table is damaged"):
        list(read_labels(labels))


def test_rows_that_failed_and_rows_without_instances_are_no_damage(tmp_path):
    rows = [
        row("a.png", None, [], status="missing", error="gone"),
        row("b.png", (HEIGHT, WIDTH), []),
        row(
            "c.png", (HEIGHT, WIDTH), [instance(square(1, 1), 0, 0.5, mask_score=0.4), instance(square(2, 2), 1, 0.25)]
        ),
        {**row("d.png", (HEIGHT, WIDTH), []), "instances": None},
    ]
    assert [len(found.instances) for found in read_labels(write_labels(tmp_path / "out", [rows]))] == [0, 0, 2, 0]


def test_every_file_of_a_table_is_looked_at(tmp_path):
    labels = table(tmp_path / "out")
    second = tmp_path / "out" / "labels" / "part-000001.parquet"
    second.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(UsageError, match=r"part-000001\.parquet' is not a Parquet file: "):
        list(read_labels(labels))
    pq.write_table(pa.table({"image_id": ["a"]}), second)
    with pytest.raises(UsageError, match=r"part-000001\.parquet' is not a label table of schema version"):
        list(read_labels(labels))
