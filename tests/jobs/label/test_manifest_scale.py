"""A run that finds its manifest half worked off: what is left to do, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.models import save_tiny_checkpoint

from benchmarks.scale.invented import write_manifest, write_published, write_shards, write_staged
from benchmarks.scale.manifest import ManifestFigures, Start, find_todo, markdown_table
from jobs.label import run
from jobs.label.manifest.parts import Sizes
from jobs.label.options import LabelConfig
from jobs.table.output import Output


@pytest.mark.compute
def test_what_is_left_of_a_hundred_thousand_images(tmp_path):
    lake, output = str(tmp_path / "lake"), Output.at(str(tmp_path / "out"))
    first, second = write_manifest(output, write_shards(lake, 10), 100_000, Sizes()).parts
    assert first.images + second.images == 100_000
    assert first.images - 65_536 in range(64)
    nothing_done = find_todo(lake, output.uri)
    assert (nothing_done.images, nothing_done.units) == (100_000, first.units + second.units)
    write_published(output, first)
    write_staged(output, second, 10)
    todo = find_todo(lake, output.uri)
    assert (todo.published_parts, todo.staged_units) == (1, 10)
    assert (todo.images, todo.units) == (second.images, second.units - 10)
    table = markdown_table(ManifestFigures(100_000, 2, 0.0, Start(), todo, Start()))
    assert f"1 parts published, 10 units committed, {second.units - 10} units to do" in table


def test_a_lake_that_changed_is_no_basis_for_a_measurement(tmp_path):
    lake, output = str(tmp_path / "lake"), Output.at(str(tmp_path / "out"))
    write_manifest(output, write_shards(lake, 2), 100, Sizes())
    (tmp_path / "lake/shard-000001.tar").write_bytes(b"another")
    with pytest.raises(RuntimeError, match="0 new and 1 changed"):
        find_todo(lake, output.uri)


@pytest.mark.usefixtures("local_ray")
def test_the_job_goes_on_where_the_made_up_output_stands(tmp_path):
    """Its made-up images cannot be decoded: each becomes a row, and the model has nothing to do."""
    lake, output = str(tmp_path / "lake"), Output.at(str(tmp_path / "out"))
    sizes = Sizes(images_per_part=100, images_per_unit=10)
    parts = write_manifest(output, write_shards(lake, 3), 300, sizes).parts
    write_published(output, parts[0])
    write_staged(output, parts[1], 4)
    config = LabelConfig(
        (lake,), output.uri, weights=str(save_tiny_checkpoint(tmp_path)), precision="float32", max_error_rate=1.0
    )
    assert run(config) == 0
    published, manifest = (_rows(Path(folder)) for folder in (output.labels, output.manifest))
    assert [row["image_id"] for row in published] == [row["image_id"] for row in manifest]
    done_before = parts[0].images + 40
    assert [row["status"] for row in published] == ["ok"] * done_before + ["undecodable"] * (300 - done_before)
    assert output.staged_units() == set()


def _rows(folder: Path) -> list[dict]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
