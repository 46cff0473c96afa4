"""`yolact label` with real Ray: what comes out, whatever goes in and however the work is shared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask
from support.lakes import draw_images, write_files, write_parquet, write_shards
from support.models import save_tiny_checkpoint

from jobs import storage
from jobs.label import run
from jobs.label.manifest.parts import read_generations
from jobs.label.options import LabelConfig
from jobs.label.pipeline.publish import COUNTS_KEY, count_rows
from jobs.runtime.errors import UsageError
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.schema import LABELS
from yolact import Predictor, load_checkpoint
from yolact.images.decode import decode_image

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return draw_images(26)


def read_labels(output: str) -> pa.Table:
    filesystem, path = fsspec.url_to_fs(output)
    files = sorted(filesystem.glob(f"{path}/labels/part-*.parquet"))
    return pa.concat_tables([pq.read_table(filesystem.open(file)) for file in files])


def by_image(table: pa.Table) -> dict[str, dict]:
    """Rows by the image's file name, without what differs between kinds of lake."""
    rows = {}
    for row in table.to_pylist():
        name = row.pop("image_id").replace("#", "/").rsplit("/", 1)[-1]
        row.pop("uri")
        assert name not in rows
        rows[name] = row
    return rows


def state_of(output: str) -> list[str]:
    filesystem, path = fsspec.url_to_fs(output)
    filesystem.invalidate_cache()
    return sorted(name.removeprefix(f"{path}/") for name in filesystem.find(path))


@pytest.fixture(scope="module")
def labelled_files(tmp_path_factory, images, checkpoint) -> tuple[str, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("files")
    write_files(str(folder / "lake"), images)
    output = str(folder / "out")
    config = LabelConfig((str(folder / "lake"),), output, weights=checkpoint, precision="float32", images_per_part=16)
    assert run(config) == 0
    return output, by_image(read_labels(output))


def test_rows_equal_the_predictor(labelled_files, images, checkpoint):
    _, rows = labelled_files
    assert rows.keys() == images.keys()
    predictor = Predictor(load_checkpoint(checkpoint))
    assert sum(len(row["instances"]) for row in rows.values()) > len(images)
    for name, data in images.items():
        pixels = decode_image(data, max_pixels=10**8, max_bytes=10**8)
        (expected,) = predictor([pixels])
        row = rows[name]
        assert (row["status"], row["error"], row["height"], row["width"]) == ("ok", None, *pixels.shape[:2])
        assert [i["score"] for i in row["instances"]] == expected.scores.tolist()
        assert [i["label"] for i in row["instances"]] == expected.labels.tolist()
        assert [i["mask"] for i in row["instances"]] == [rle["counts"] for rle in expected.masks]
        for instance, box in zip(row["instances"], expected.boxes.tolist(), strict=True):
            x, y, width, height = instance["bbox"]
            assert (x, y) == tuple(box[:2])
            assert (x + width, y + height) == pytest.approx(box[2:], abs=1e-3)


def test_output_is_what_the_contract_says(labelled_files, images):
    output, _ = labelled_files
    assert state_of(output) == [
        "_SUCCESS",
        "_state/ids/part-000000.u64",
        "_state/ids/part-000001.u64",
        "_state/sources/generation-000000.parquet",
        "labels/part-000000.parquet",
        "labels/part-000001.parquet",
        "manifest/part-000000.parquet",
        "manifest/part-000001.parquet",
        "run.json",
    ]
    table = read_labels(output)
    assert table.schema.equals(LABELS)
    manifest = pq.read_table(Path(output) / "manifest")
    assert manifest["image_id"].to_pylist() == table["image_id"].to_pylist()
    record = json.loads((Path(output) / "run.json").read_text())
    assert record["counts"]["images"] == record["counts"]["ok"] == len(images)
    assert record["counts"]["instances"] == sum(len(i) for i in table["instances"].to_pylist())
    metadata = pq.read_metadata(Path(output) / "labels/part-000000.parquet").metadata
    assert metadata[b"yolact.identity"].decode() == record["identity_sha256"]
    for row in table.to_pylist():
        scores = [instance["score"] for instance in row["instances"]]
        assert scores == sorted(scores, reverse=True)
        for instance in row["instances"]:
            mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": instance["mask"]})
            assert mask.shape == (row["height"], row["width"])
            assert instance["area"] == mask.sum()
            assert instance["category"] == ("round", "square", "other")[instance["label"]]


@pytest.mark.parametrize(
    ("kind", "actors", "where"),
    [("tar", "2", "disk"), ("tar", "1", "s3"), ("parquet", "1", "disk"), ("parquet", "2", "s3"), ("files", "2", "s3")],
)
def test_same_bits_whatever_the_actors_and_the_kind_of_lake(
    request, tmp_path, labelled_files, images, checkpoint, kind, actors, where
):
    base = request.getfixturevalue("s3").prefix() if where == "s3" else str(tmp_path)
    write = {
        "tar": lambda folder: write_shards(folder, images, 4),
        "parquet": lambda folder: write_parquet(folder, images, 2),
        "files": lambda folder: write_files(folder, images),
    }[kind]
    write(f"{base}/lake")
    inputs = (f"{base}/lake/shard-{{000..003}}.tar",) if kind == "tar" else (f"{base}/lake",)
    output = f"{base}/out"
    assert run(LabelConfig(inputs, output, weights=checkpoint, precision="float32", num_actors=actors)) == 0
    assert by_image(read_labels(output)) == labelled_files[1]


def test_batch_size_changes_no_more_than_float_noise(tmp_path, labelled_files, images, checkpoint):
    write_files(str(tmp_path / "lake"), images)
    config = LabelConfig(
        (str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="float32", batch_size=5
    )
    assert run(config) == 0
    rows = by_image(read_labels(str(tmp_path / "out")))
    for name, expected in labelled_files[1].items():
        got = rows[name]["instances"]
        assert [i["label"] for i in got] == [i["label"] for i in expected["instances"]]
        for a, b in zip(got, expected["instances"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)
            assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-2)


def test_a_finished_run_does_nothing_and_a_grown_lake_labels_what_is_new(tmp_path, images, checkpoint, capsys):
    lake, output = tmp_path / "lake", str(tmp_path / "out")
    names = list(images)
    write_files(str(lake), {name: images[name] for name in names[:10]})
    config = LabelConfig((str(lake),), output, weights=checkpoint, precision="float32")
    assert run(config) == 0
    first = (tmp_path / "out/labels/part-000000.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert run(config) == 0
    assert "nothing to do" in capsys.readouterr().out
    write_files(str(lake), {name: images[name] for name in names[10:14]})
    assert run(config) == 0
    assert "this run   4 images" in capsys.readouterr().out
    assert (tmp_path / "out/labels/part-000000.parquet").stat().st_mtime_ns == first
    assert by_image(read_labels(output)).keys() == set(names[:14])


def test_what_was_replaced_is_reported_and_relabelled_only_when_asked(tmp_path, images, checkpoint, capsys, caplog):
    names = list(images)
    write_shards(str(tmp_path / "lake"), {name: images[name] for name in names[:12]}, 3)
    config = LabelConfig(
        (str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="float32", images_per_part=6
    )
    assert run(config) == 0
    before = by_image(read_labels(config.output))
    # the second shard, which lies in both parts, gets other images and one more
    write_shards(str(tmp_path / "new"), {name: images[name] for name in names[20:25]}, 1)
    (tmp_path / "new/shard-000.tar").rename(tmp_path / "lake/shard-001.tar")
    assert run(config) == 0
    assert "were replaced since they were indexed" in caplog.text
    assert by_image(read_labels(config.output)) == before
    assert run(dataclasses.replace(config, relabel_changed=True)) == 0
    after = by_image(read_labels(config.output))
    assert after.keys() == {*names[:4], *names[8:12], *names[20:25]}
    assert {name: after[name] for name in names[:4]} == {name: before[name] for name in names[:4]}
    manifest = pq.read_table(tmp_path / "out/manifest")
    assert sorted(manifest["image_id"].to_pylist()) == sorted(read_labels(config.output)["image_id"].to_pylist())
    capsys.readouterr()
    assert run(config) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_replaced_loose_images_are_labelled_again_once_each(tmp_path, images, checkpoint, capsys):
    names = list(images)
    write_files(str(tmp_path / "lake"), {f"{i}.jpg": images[names[i]] for i in range(6)})
    config = LabelConfig((str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="float32")
    assert run(config) == 0
    before = by_image(read_labels(config.output))
    write_files(str(tmp_path / "lake"), {"1.jpg": images[names[11]], "4.jpg": images[names[14]]})
    assert run(dataclasses.replace(config, relabel_changed=True)) == 0
    after = by_image(read_labels(config.output))
    assert [row["status"] for row in after.values()] == ["ok"] * 6
    assert [name for name in after if after[name] != before[name]] == ["1.jpg", "4.jpg"]
    assert "images     6 (6 ok, 0 failed)" in capsys.readouterr().out


def test_a_finished_table_that_holds_a_row_twice_is_healed(tmp_path, images, checkpoint):
    """As an earlier version left it after --relabel-changed: 4.jpg stands there as it was and as it is."""
    names = list(images)
    lake, output = tmp_path / "lake", Output.at(str(tmp_path / "out"))
    write_files(str(lake), {f"{i}.jpg": images[names[i]] for i in range(6)})
    config = LabelConfig((str(lake),), output.uri, weights=checkpoint, precision="float32")
    assert run(config) == 0
    right = by_image(read_labels(output.uri))
    manifest = tables.read(output.manifest_part(0))
    stale = pa.array(["an older one" if row == 4 else etag for row, etag in enumerate(manifest["etag"].to_pylist())])
    doubled = pa.concat_tables([manifest, manifest.set_column(5, "etag", stale).slice(4, 1)])
    storage.put_atomic(output.manifest_part(0), tables.to_bytes(doubled))
    labels = tables.read(output.labels_part(0))
    labels = pa.concat_tables([labels, labels.slice(4, 1)])
    books = {COUNTS_KEY: json.dumps(dataclasses.asdict(count_rows(labels)))}
    storage.put_atomic(output.labels_part(0), tables.to_bytes(labels.replace_schema_metadata(books)))
    (generation,) = read_generations(output)
    units = generation.parts[0].units
    sources = generation.sources.replace_schema_metadata({"yolact.parts": json.dumps([[0, units, 7]])})
    storage.put_atomic(output.generation(0), tables.to_bytes(sources))
    marker = json.loads(storage.read_bytes(output.success))
    del marker["parts"]
    storage.put_atomic(output.success, json.dumps(marker).encode())
    storage.delete_objects([output.part_ids(0)])
    assert read_labels(output.uri).num_rows == 7

    assert run(config) == 0
    assert by_image(read_labels(output.uri)) == right
    manifest_ids = pq.read_table(output.manifest)["image_id"].to_pylist()
    assert sorted(manifest_ids) == sorted(read_labels(output.uri)["image_id"].to_pylist())


def test_a_finished_table_that_lost_a_file_is_completed(tmp_path, images, checkpoint, labelled_files):
    write_files(str(tmp_path / "lake"), images)
    output = tmp_path / "out"
    config = LabelConfig(
        (str(tmp_path / "lake"),), str(output), weights=checkpoint, precision="float32", images_per_part=16
    )
    assert run(config) == 0
    (output / "labels/part-000001.parquet").unlink()
    assert run(config) == 0
    assert by_image(read_labels(str(output))) == labelled_files[1]


def test_it_goes_on_where_it_was_stopped(tmp_path, images, checkpoint, labelled_files, capsys):
    write_files(str(tmp_path / "lake"), images)
    output = tmp_path / "out"
    config = LabelConfig(
        (str(tmp_path / "lake"),), str(output), weights=checkpoint, precision="float32", images_per_part=16
    )
    assert run(config) == 0
    # as a run leaves it that was killed after the first part was published
    (output / "labels/part-000001.parquet").unlink()
    (output / "_SUCCESS").unlink()
    capsys.readouterr()
    assert run(config) == 0
    assert "this run   10 images" in capsys.readouterr().out
    assert by_image(read_labels(str(output))) == labelled_files[1]


def test_another_identity_is_refused_with_both_shown(labelled_files, checkpoint, tmp_path):
    output, _ = labelled_files
    inputs = (str(Path(output).parent / "lake"),)
    with pytest.raises(UsageError, match=r"score_threshold 0.15; asked: .*score_threshold 0.5"):
        run(LabelConfig(inputs, output, weights=checkpoint, precision="float32", score_threshold=0.5))
    other = str(save_tiny_checkpoint(tmp_path, seed=1))
    with pytest.raises(UsageError, match="weights_sha256"):
        run(LabelConfig(inputs, output, weights=other, precision="float32"))


def test_bad_images_are_rows_and_their_neighbours_get_labels(tmp_path, labelled_files, images, checkpoint):
    broken = {"empty.jpg": b"", "page.png": b"<html>not found</html>", "cut.jpg": images["picture-0000.jpg"][:300]}
    write_files(str(tmp_path / "lake"), {**images, **broken})
    config = LabelConfig((str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="float32")
    assert run(config) == 3
    rows = by_image(read_labels(str(tmp_path / "out")))
    for name in broken:
        row = rows.pop(name)
        assert row["status"] != "ok"
        assert row["error"]
        assert (row["height"], row["width"], row["instances"]) == (None, None, [])
    assert rows == labelled_files[1]


def test_more_actors_than_the_cluster_holds_are_refused_at_once(tmp_path, images, checkpoint):
    write_files(str(tmp_path / "lake"), dict(list(images.items())[:2]))
    config = LabelConfig((str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="float32")
    for wrong in ({"num_actors": "3"}, {"device": "cuda"}):
        with pytest.raises(UsageError, match="cannot be scheduled"):
            run(LabelConfig(config.inputs, config.output, weights=checkpoint, precision="float32", **wrong))
