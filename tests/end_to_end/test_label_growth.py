"""A large lake is labelled while it is still being indexed. Here the first generation has one shard."""

from __future__ import annotations

import time

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, parquet_of, put, tar_bytes, write_files, write_shards
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.manifest import growth, indexing
from jobs.label.manifest.parts import read_generations
from jobs.label.options import LabelConfig
from jobs.runtime.errors import UsageError
from jobs.table.output import Output

pytestmark = pytest.mark.usefixtures("local_ray")

SHARDS = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("weights")))


@pytest.fixture
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first generation takes one shard, and the others as many images as there were before."""
    monkeypatch.setattr(indexing, "FIRST_IMAGES", 1)


def config(lake: str, output: str, checkpoint: str, **more) -> LabelConfig:
    return LabelConfig((lake,), output, weights=checkpoint, precision="float32", images_per_part=4, **more)


def rows_of(output: str) -> list[dict]:
    filesystem, path = fsspec.url_to_fs(output)
    files = sorted(filesystem.glob(f"{path}/labels/part-*.parquet"))
    rows = pa.concat_tables([pq.read_table(filesystem.open(file)) for file in files]).to_pylist()
    return sorted(rows, key=lambda row: row["image_id"])


def test_the_rows_do_not_depend_on_the_generations(tmp_path, checkpoint, monkeypatch, capsys):
    lake = str(tmp_path / "lake")
    write_shards(lake, draw_images(12), SHARDS)
    write_files(lake, draw_images(5, seed=1))
    assert run(config(lake, str(tmp_path / "one"), checkpoint)) == 0
    monkeypatch.setattr(indexing, "FIRST_IMAGES", 1)
    assert run(config(lake, str(tmp_path / "many"), checkpoint)) == 0
    assert len(read_generations(Output(str(tmp_path / "one")))) == 1
    assert len(read_generations(Output(str(tmp_path / "many")))) > 2
    assert rows_of(str(tmp_path / "many")) == rows_of(str(tmp_path / "one"))
    capsys.readouterr()
    assert run(config(lake, str(tmp_path / "many"), checkpoint)) == 0
    assert "nothing to do" in capsys.readouterr().out
    # the index of the shards is gone with the last generation
    assert not list((tmp_path / "many" / "_state").glob("index/*"))


def test_labels_come_before_the_lake_is_indexed(tmp_path, checkpoint, monkeypatch, small_generations):
    lake, output = str(tmp_path / "lake"), Output(str(tmp_path / "out"))
    write_shards(lake, draw_images(10), SHARDS)
    waited: list[bool] = []

    def add_after_the_first_labels(*arguments):
        end = time.monotonic() + 200
        while not output.published_parts() and time.monotonic() < end:
            time.sleep(0.05)
        waited.append(bool(output.published_parts()))
        return indexing.add_generation(*arguments)

    monkeypatch.setattr(growth, "add_generation", add_after_the_first_labels)
    assert run(config(lake, output.uri, checkpoint)) == 0
    assert waited[0]
    assert len(rows_of(output.uri)) == 10


def test_a_mistake_in_a_later_shard_ends_the_run_in_one_line_and_keeps_what_is_labelled(
    tmp_path, checkpoint, monkeypatch, small_generations
):
    lake, output = tmp_path / "lake", str(tmp_path / "out")
    first, second = draw_images(2).values()
    good = pa.table({"image": [first, second]})
    put(str(lake / "0.parquet"), parquet_of(good))
    put(str(lake / "1.parquet"), parquet_of(pa.table({"one": [first, second], "other": [second, first]})))
    with pytest.raises(UsageError, match="--image-column"):
        run(config(str(lake), output, checkpoint))
    put(str(lake / "1.parquet"), parquet_of(good))
    assert run(config(str(lake), output, checkpoint)) == 0
    assert len(rows_of(output)) == 4


def test_a_lake_whose_first_shards_hold_no_image_is_labelled(tmp_path, checkpoint, small_generations):
    lake = tmp_path / "lake"
    put(str(lake / "0.tar"), tar_bytes([("a.txt", b"words")]))
    put(str(lake / "1.tar"), tar_bytes(list(draw_images(2).items())))
    assert run(config(str(lake), str(tmp_path / "out"), checkpoint)) == 0
    assert len(rows_of(str(tmp_path / "out"))) == 2


def test_a_lake_of_many_shards_without_an_image_is_told(tmp_path, checkpoint, small_generations):
    for number in range(3):
        put(str(tmp_path / "lake" / f"{number}.tar"), tar_bytes([("a.jp2", b"jpeg 2000")]))
    with pytest.raises(UsageError, match="nothing to label"):
        run(config(str(tmp_path / "lake"), str(tmp_path / "out"), checkpoint))
