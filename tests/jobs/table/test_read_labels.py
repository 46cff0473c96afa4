"""The reader of label tables gives back what was written, in order, from every way of naming a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import CLASS_NAMES, failed_row, random_rows, row, write_labels

from jobs.runtime.errors import UsageError
from jobs.table.read import open_labels, read_columns, read_labels


@pytest.fixture
def rows():
    return random_rows(40)


@pytest.fixture
def output(tmp_path, rows):
    return write_labels(tmp_path / "out", [rows[:15], rows[15:]], row_group_size=4)


def test_rows_come_back_in_order_with_their_masks(output, rows):
    found = list(read_labels(output))
    assert [image.image_id for image in found] == [r["image_id"] for r in rows]
    for image, expected in zip(found, rows, strict=True):
        assert (image.status, image.error, image.height) == (expected["status"], expected["error"], expected["height"])
        assert image.ok == (expected["status"] == "ok")
        for index, (instance, wanted) in enumerate(zip(image.instances, expected["instances"], strict=True)):
            assert instance.index == index
            mask = instance.mask()
            assert mask.dtype == bool
            assert mask.shape == (image.height, image.width)
            assert mask.sum() == instance.area == wanted["area"]
            assert instance.rle["counts"] == wanted["mask"]
            assert instance.score == np.float32(wanted["score"])
            assert instance.category == CLASS_NAMES[instance.label]


@pytest.mark.parametrize("name", ["{}", "{}/", "{}/labels", "{}/labels/*.parquet", "file://{}", "file://{}/labels/"])
def test_a_table_is_found_by_any_of_its_names(output, rows, name):
    table = open_labels(name.format(output))
    assert len(table.files) == 2
    assert sum(piece.rows for piece in table.pieces()) == len(rows)
    if "*" not in name:
        assert table.run.class_names == CLASS_NAMES
        assert table.finished


def test_one_file_is_a_table(output):
    table = open_labels(f"{output}/labels/part-000001.parquet")
    assert sum(piece.rows for piece in table.pieces()) == 25
    assert table.run is None


def test_a_folder_with_glob_characters_is_read(tmp_path, rows):
    assert len(list(read_labels(write_labels(tmp_path / "run[1]*", [rows])))) == len(rows)


@pytest.mark.parametrize("rows_per_piece", [1, 7, 1000])
def test_pieces_cover_the_table_once(output, rows, rows_per_piece):
    pieces = open_labels(output).pieces(rows_per_piece)
    assert [piece.first_row for piece in pieces] == np.cumsum([0, *(piece.rows for piece in pieces)])[:-1].tolist()
    ids = [image.image_id for piece in pieces for image in piece.images()]
    assert ids == [r["image_id"] for r in rows]
    assert open_labels(output).shares(rows_per_piece) == pieces  # the name that version 0.1.0 documented


def test_columns_alone(output, rows):
    table = read_columns(output, ["image_id", "instances.score", "instances.label"])
    assert table.column_names == ["image_id", "instances"]
    assert table["instances"].to_pylist() == [
        [{"label": i["label"], "score": np.float32(i["score"])} for i in r["instances"]] for r in rows
    ]


def test_tables_without_an_instance_or_a_row(tmp_path):
    output = write_labels(tmp_path / "out", [[row("a.jpg", (3, 4), []), failed_row("b.jpg")], []])
    assert [image.instances for image in read_labels(output)] == [(), ()]
    assert read_columns(output, ["status"]).num_rows == 2


def test_reading_from_s3(s3, tmp_path, rows):
    prefix = s3.prefix()
    output = write_labels(tmp_path / "out", [rows])
    s3.filesystem().put(output + "/", f"{prefix}/out", recursive=True)
    assert [image.image_id for image in read_labels(f"{prefix}/out")] == [r["image_id"] for r in rows]


def test_clear_words_for_what_is_no_label_table(tmp_path):
    with pytest.raises(UsageError, match="no label files at"):
        open_labels(str(tmp_path))
    (tmp_path / "words.parquet").write_text("not parquet")
    with pytest.raises(UsageError, match="is not a Parquet file"):
        open_labels(str(tmp_path))
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "words.parquet")
    with pytest.raises(UsageError, match="lacks uri, status"):
        open_labels(str(tmp_path / "words.parquet"))
    output = write_labels(tmp_path / "out", [[row("a.jpg", (3, 4), [])]])
    with pytest.raises(UsageError, match=r"no column 'scores' .* instances\.score"):
        read_columns(output, ["scores"])
