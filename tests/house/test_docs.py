"""The lines of docs/read-results.md work as they stand, on a label table, with the tools that are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.tables import random_rows, write_labels

from jobs.table.read import read_labels

PAGE = Path(__file__).resolve().parents[2] / "docs" / "read-results.md"
BLOCKS = re.findall(r"```(python|sql)\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> str:
    rows = random_rows(40)
    return write_labels(tmp_path_factory.mktemp("labels") / "out", [rows[:15], rows[15:]])


def here(text: str, labels: str) -> str:
    """The same lines with the address of this table instead of the one in the page."""
    return re.sub(r"""(["'])(?:s3://lake/labels|labels/labels)(?=["'/])""", rf"\1{labels}/labels", text)


def test_the_page_has_every_tool():
    text = PAGE.read_text()
    assert all(tool in text for tool in ("read_labels", "coco_mask", "DuckDB", "polars", "pandas"))
    assert {kind for kind, _ in BLOCKS} == {"python", "sql"}


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "python"])
def test_python_lines_run(text, labels, capsys):
    for tool in ("polars", "pandas"):
        if f"import {tool}" in text:
            pytest.importorskip(tool, reason=f"{tool} is not installed")
    image = next(image for image in read_labels(labels) if image.instances)
    names = {"height": image.height, "width": image.width, "instance": {"mask": image.instances[0].rle["counts"]}}
    exec(compile(here(text, labels), str(PAGE), "exec"), names)
    if "coco_mask" in text:
        assert (names["mask"] == image.instances[0].mask()).all()
    if "import pandas" in text:
        assert len(names["found"]) == sum(len(row.instances) for row in read_labels(labels))
    if "read_labels(" in text:
        assert capsys.readouterr().out.count("\n") > 40


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "sql"])
def test_sql_lines_run(text, labels):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    counted, failed, sure = (duckdb.sql(query).fetchall() for query in here(text, labels).split(";") if query.strip())
    rows = list(read_labels(labels))
    assert sum(count for _, count, _ in counted) == sum(len(row.instances) for row in rows)
    assert sum(count for _, _, count in failed) == sum(not row.ok for row in rows)
    wanted = [r.image_id for r in rows if sum(i.category == "person" and i.score > 0.7 for i in r.instances) >= 3]
    assert sorted(image_id for (image_id,) in sure) == sorted(wanted)
