"""The hostile set through the whole job: every file its status, and the good neighbours their labels to the bit."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask
from support.hostile_images import write_lake
from support.lakes import draw_images, write_files
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.table.schema import LABELS

pytestmark = pytest.mark.usefixtures("local_ray")


def labelled(tmp_path, lake: str, name: str, checkpoint: str) -> dict[str, dict]:
    config = LabelConfig(
        (lake,), str(tmp_path / name), weights=checkpoint, precision="float32", max_error_rate=1.0, images_per_unit=8
    )
    assert run(config) == 0
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / name / "labels").iterdir())])
    assert table.schema.equals(LABELS)
    rows = {row["image_id"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    return rows


def test_every_hostile_file_has_its_status_and_its_neighbours_their_labels(tmp_path, fault_report):
    checkpoint = str(save_tiny_checkpoint(tmp_path))
    neighbours = {f"zz-{name}": data for name, data in draw_images(8).items()}
    write_files(str(tmp_path / "clean"), neighbours)
    clean = labelled(tmp_path, str(tmp_path / "clean"), "clean-out", checkpoint)

    expected = write_lake(tmp_path / "lake")
    # names that sort among the hostile ones, so that they share their units
    good = {f"{name[5:8]}-{i}.jpg": name for i, name in enumerate(neighbours)}
    write_files(str(tmp_path / "lake"), {new: neighbours[old] for new, old in good.items()})
    rows = labelled(tmp_path, str(tmp_path / "lake"), "out", checkpoint)

    for new, old in good.items():
        row, untouched = rows.pop(f"{tmp_path}/lake/{new}"), clean[f"{tmp_path}/clean/{old}"]
        same = ("status", "error", "height", "width", "instances")
        assert [row[name] for name in same] == [untouched[name] for name in same]
    assert {image_id: row["status"] for image_id, row in rows.items()} == expected
    for row in rows.values():
        if row["status"] == "ok":
            for instance in row["instances"]:
                mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": instance["mask"]})
                assert int(mask.sum()) == instance["area"]
        else:
            assert row["error"]
            assert "\n" not in row["error"]
            assert (row["height"], row["width"], row["instances"]) == (None, None, [])
    # nothing was written where a member's name pointed to
    assert {path.name for path in tmp_path.iterdir()} == {"clean", "clean-out", "lake", "out", "tiny-0.safetensors"}
    lake = f"{tmp_path}/lake/"
    fault_report.expect("hostile", [image_id.removeprefix(lake) for image_id in expected])
    for image_id, row in rows.items():
        error = row["error"] and row["error"].replace(lake, "")
        fault_report.record("hostile", image_id.removeprefix(lake), status=row["status"], error=error)
