"""The contract of docs/schema.md: version 1 stays readable, a table that has grown is read, the page is complete."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import export, failed_row, instance, row, write_labels

from jobs.label.identity import IN_IDENTITY
from jobs.label.manifest.parts import MANIFEST
from jobs.runtime.errors import UsageError
from jobs.table import record
from jobs.table.output import Output
from jobs.table.read import open_labels, read_columns, read_labels
from jobs.table.record import RunRecord
from jobs.table.schema import INSTANCE, LABELS, SCHEMA_VERSION

ROOT = Path(__file__).resolve().parents[3]
#: a finished run of version 1, written once by `yolact label` and never again: three plates and a broken file
FROZEN = Path(__file__).parent / "version_1"


def mask(x: int) -> np.ndarray:
    drawn = np.zeros((20, 30), bool)
    drawn[2:9, x : x + 6] = True
    return drawn


ROWS = [
    row("a.png", (20, 30), [instance(mask(1), 0, 0.5), instance(mask(9), 1, 0.25)]),
    failed_row("b.png"),
]


def rewrite(folder: Path, change, metadata: dict[str, str] | None = None) -> str:
    """A label table whose only part went through `change`, a function of the Arrow table."""
    labels = write_labels(folder, [ROWS])
    [part] = (folder / "labels").glob("*.parquet")
    pq.write_table(change(pq.read_table(part)).replace_schema_metadata(metadata), part)
    return labels


def grown(table: pa.Table) -> pa.Table:
    """The same rows as a later minor version may write them: a new column, a new field, in another order."""
    rows = [
        {
            **{name: values[name] for name in reversed(LABELS.names)},
            "blur": 0.5,
            "instances": [{"track": 7, **found} for found in values["instances"]],
        }
        for values in table.to_pylist()
    ]
    element = pa.struct([("track", pa.int64()), *INSTANCE])
    columns = [
        *(field for field in reversed(list(LABELS)) if field.name != "instances"),
        pa.field("blur", pa.float32()),
    ]
    return pa.Table.from_pylist(rows, pa.schema([pa.field("instances", pa.list_(element)), *columns]))


def test_a_table_with_more_columns_and_fields_is_read(tmp_path):
    expected = list(read_labels(write_labels(tmp_path / "plain", [ROWS])))
    labels = rewrite(tmp_path / "grown", grown, {"yolact.schema_version": "1"})
    assert list(read_labels(labels)) == expected
    assert read_columns(labels, ["instances.score", "blur"])["blur"].to_pylist() == [0.5, 0.5]
    exported = json.loads(export(labels, tmp_path / "coco.json").read_text())
    assert len(exported["annotations"]) == 2


def test_parts_of_two_minor_versions_make_one_table(tmp_path):
    labels = rewrite(tmp_path / "grown", grown)
    later = [row("c.png", (20, 30), [instance(mask(3), 2, 0.75)])]
    pq.write_table(pa.Table.from_pylist(later, LABELS), tmp_path / "grown" / "labels" / "part-000001.parquet")
    assert [found.image_id for found in read_labels(labels)] == ["a.png", "b.png", "c.png"]
    assert read_columns(labels, ["instances.category"]).num_rows == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table.drop_columns(["error"]), "lacks error"),
        (
            lambda table: table.set_column(4, "height", table["height"].cast(pa.int64())),
            "has height of type int64, not int32",
        ),
        (
            lambda table: table.drop_columns(["instances"]).append_column(
                "instances", pa.array([[], []], pa.list_(pa.struct([f for f in INSTANCE if f.name != "area"])))
            ),
            r"lacks instances\.area",
        ),
        (
            lambda table: table.drop_columns(["instances"]).append_column(
                "instances", pa.array([[], []], pa.list_(pa.int8()))
            ),
            "has instances of type list<element: int8>, not a list of structs",
        ),
    ],
)
def test_a_table_that_lost_something_is_refused_by_name(tmp_path, change, what):
    with pytest.raises(UsageError, match=rf"not a label table of schema version 1: it {what}"):
        open_labels(rewrite(tmp_path / "out", change))


def test_a_later_major_version_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has schema version 2, and this program reads up to 1"):
        open_labels(rewrite(tmp_path / "out", lambda table: table, {"yolact.schema_version": "2"}))


def test_the_frozen_table_has_the_columns_of_version_1():
    [part] = (FROZEN / "labels").glob("*.parquet")
    element = [
        ("label", pa.int32()),
        ("category", pa.string()),
        ("score", pa.float32()),
        ("mask_score", pa.float32()),
        ("bbox", pa.list_(pa.float32(), 4)),
        ("area", pa.int32()),
        ("mask", pa.binary()),
    ]
    assert pq.read_schema(part).remove_metadata() == pa.schema(
        [
            ("image_id", pa.string()),
            ("uri", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("instances", pa.list_(pa.struct(element))),
        ]
    )
    assert pq.read_schema(part).metadata[b"yolact.schema_version"] == b"1"


def test_the_frozen_table_is_read_with_every_value():
    expected = json.loads((FROZEN / "expected.json").read_text())
    found = [
        {
            "image_id": image.image_id.rpartition("/")[2],
            "status": image.status,
            "error": image.error,
            "size": [image.height, image.width],
            "instances": [
                [
                    i.label,
                    i.category,
                    round(i.score, 6),
                    i.mask_score,
                    [round(v, 3) for v in i.bbox],
                    int(i.mask().sum()),
                ]
                for i in image.instances
            ],
        }
        for image in read_labels(str(FROZEN))
    ]
    assert found == expected
    assert [image.ok for image in read_labels(str(FROZEN))].count(False) == 1
    for image in read_labels(str(FROZEN)):
        assert [i.area for i in image.instances] == [int(i.mask().sum()) for i in image.instances]


def test_the_frozen_run_is_read():
    run = open_labels(str(FROZEN)).run
    assert (run.status, run.schema_version, run.model, run.class_names) == ("finished", 1, "nuclei", ("nucleus",))
    assert (run.counts.images, run.counts.ok, run.counts.failed) == (4, 3, 1)
    assert run.counts.by_status == {"ok": 3, "truncated": 1}
    assert run.runs[-1].finished is not None
    values = json.loads((FROZEN / "run.json").read_text())
    # what was written then is written again, key by key: none was lost
    assert json.loads(run.to_json()) == values
    assert record.read_success(Output(str(FROZEN)))["images"] == 4
    assert record.identity_hash(run.identity) == run.identity_sha256


def test_the_frozen_table_is_exported(tmp_path):
    exported = json.loads(export(str(FROZEN), tmp_path / "coco.json").read_text())
    expected = json.loads((FROZEN / "expected.json").read_text())
    assert len(exported["annotations"]) == sum(len(image["instances"]) for image in expected) > 0


def keys_of(kind: type, prefix: str = "") -> list[str]:
    """The keys of a record and of the records in it, such as `weights.sha256` or `runs[].steady.images`."""
    found = []
    for name, hint in get_type_hints(kind).items():
        if name not in {field.name for field in fields(kind)}:
            continue
        found.append(f"{prefix}{name}")
        inner = [one for one in (hint, *getattr(hint, "__args__", ())) if is_dataclass(one)]
        dots = "[]." if str(hint).startswith("tuple") else "."
        found += [key for one in inner for key in keys_of(one, f"{prefix}{name}{dots}")]
    return found


def test_the_page_names_every_column_and_key():
    text = (ROOT / "docs" / "schema.md").read_text()
    named = {
        name
        for line in text.splitlines()
        if line.startswith("|")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    columns = [field.name for field in LABELS] + [f"instances.{field.name}" for field in INSTANCE]
    assert [name for name in columns if name not in named] == []
    assert [key for key in keys_of(RunRecord) if key not in named] == []
    assert [name for name in MANIFEST.names if name not in named] == []
    assert [key for key in json.loads((FROZEN / "_SUCCESS").read_text()) if key not in named] == []
    [part] = (FROZEN / "labels").glob("*.parquet")
    metadata = [key.decode() for key in pq.read_metadata(part).metadata if key.startswith(b"yolact.")]
    assert [key for key in metadata if key not in named] == []
    assert [key for key in {"schema_version", *IN_IDENTITY.values()} if f"identity.{key}" not in named] == []
    assert f"version {SCHEMA_VERSION}" in text
