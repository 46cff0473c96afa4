"""`yolact label` on what users bring: lists of URIs, tables beside tars, files of other kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, parquet_of, put, tar_bytes
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.runtime.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES, UsageError

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("weights")))


def rows_of(output: Path) -> dict[str, str]:
    table = pq.read_table(output / "labels")
    return dict(zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True))


def test_a_list_a_table_beside_tars_and_files_that_are_passed_over(tmp_path, checkpoint):
    images = draw_images(6)
    lake = tmp_path / "lake"
    put(f"{lake}/0.tar", tar_bytes([*list(images.items())[:3], ("x.jp2", b"\0")]))
    put(f"{lake}/0.parquet", parquet_of(pa.table({"url": ["https://host.example/a.jpg"], "caption": ["a"]})))
    for number in range(3):
        put(f"{lake}/{number}.jxl", b"\xff\x0a")
    names = list(images)[3:]
    for name in names:
        put(f"{tmp_path}/elsewhere/{name}", images[name])
    put(f"{tmp_path}/list.txt", "".join(f"elsewhere/{name}\n" for name in [*names, "gone.jpg"]).encode())
    output = tmp_path / "out"
    config = LabelConfig((str(lake), f"{tmp_path}/list.txt"), str(output), weights=checkpoint, precision="float32")
    assert run(config) == EXIT_TOO_MANY_BAD_IMAGES
    expected = {f"{lake}/0.tar#{name}": "ok" for name in list(images)[:3]}
    expected |= {f"{tmp_path}/elsewhere/{name}": "ok" for name in names}
    assert rows_of(output) == expected | {f"{tmp_path}/elsewhere/gone.jpg": "missing"}
    assert json.loads((output / "run.json").read_text())["passed_over"] == {".jxl": 3}
    # the list has grown: only what is new is labelled
    put(f"{tmp_path}/elsewhere/gone.jpg", images[names[0]])
    put(f"{tmp_path}/elsewhere/new.jpg", images[names[0]])
    with open(tmp_path / "list.txt", "a") as file:
        file.write("elsewhere/new.jpg\n")
    assert run(config) == EXIT_TOO_MANY_BAD_IMAGES
    assert rows_of(output)[f"{tmp_path}/elsewhere/new.jpg"] == "ok"


def test_a_lake_of_tables_without_image_bytes_is_refused(tmp_path, checkpoint):
    put(f"{tmp_path}/lake/a.parquet", parquet_of(pa.table({"a": [1]})))
    config = LabelConfig((f"{tmp_path}/lake",), str(tmp_path / "out"), weights=checkpoint, precision="float32")
    with pytest.raises(UsageError, match=r"nothing to label: 1 Parquet without image bytes; .*it has a \(int64\)"):
        run(config)


def test_file_names_that_are_not_utf8(tmp_path, checkpoint):
    images = draw_images(2)
    (tmp_path / "lake").mkdir()
    for name, data in zip((b"caf\xe9.jpg", b"plain.jpg"), images.values(), strict=True):
        Path(str(tmp_path / "lake") + "/" + name.decode("utf-8", "surrogateescape")).write_bytes(data)
    output = tmp_path / "out"
    config = LabelConfig((f"{tmp_path}/lake",), str(output), weights=checkpoint, precision="float32")
    assert run(config) == EXIT_OK
    assert rows_of(output) == {f"{tmp_path}/lake/caf\\xe9.jpg": "ok", f"{tmp_path}/lake/plain.jpg": "ok"}
