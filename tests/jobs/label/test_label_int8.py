"""`yolact label --precision int8` on real Ray: calibrated on the lake once, and one network for the whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, write_files
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.manifest.parts import read_generations
from jobs.label.networks import sample_rows
from jobs.label.options import LabelConfig
from jobs.runtime.errors import JobError, UsageError
from jobs.table.output import Output
from yolact import Predictor, load_checkpoint
from yolact.images.decode import decode_image
from yolact.inference.openvino_engine import OpenVinoNetwork

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, checkpoint) -> tuple[LabelConfig, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("int8")
    images = draw_images(10)
    # an image that cannot be read is left out of the calibration, and the job goes on
    write_files(str(folder / "lake"), images | {"picture-broken.jpg": b"\xff\xd8\xff broken"})
    config = LabelConfig(
        (str(folder / "lake"),), str(folder / "out"), weights=checkpoint, precision="int8", max_error_rate=0.5
    )
    assert run(config) == 0
    return config, images


def rows_of(output: str) -> dict[str, dict]:
    rows = [row for file in Path(output, "labels").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    return {Path(row["image_id"]).name: row for row in rows}


def test_the_labels_are_those_of_the_network_that_run_json_names(labelled, checkpoint):
    config, images = labelled
    record = json.loads(Path(config.output, "run.json").read_text())
    assert (record["precision"], record["engine"]) == ("int8", "openvino")
    assert record["quantisation"]["images"] == len(images)
    assert len(record["quantisation"]["calibration_sha256"]) == 64
    network = OpenVinoNetwork.from_bytes(Path(config.output, "_state/int8.zip").read_bytes())
    assert network.sha256 == record["quantisation"]["model_sha256"]
    predict = Predictor(load_checkpoint(checkpoint), device="cpu", precision="int8", network=network)
    rows = rows_of(config.output)
    assert rows["picture-broken.jpg"]["status"] == "undecodable"
    for name, data in images.items():
        (expected,) = predict([decode_image(data)])
        scores = [instance["score"] for instance in rows[name]["instances"]]
        assert scores == pytest.approx(expected.scores.tolist(), abs=1e-5)


def test_a_grown_lake_is_labelled_by_the_same_network(labelled):
    config, images = labelled
    before = json.loads(Path(config.output, "run.json").read_text())
    network = Path(config.output, "_state/int8.zip")
    written = network.stat().st_mtime_ns
    write_files(config.inputs[0], {"zz-new.jpg": next(iter(images.values()))})
    assert run(config) == 0
    after = json.loads(Path(config.output, "run.json").read_text())
    assert after["quantisation"] == before["quantisation"]
    assert network.stat().st_mtime_ns == written
    rows = rows_of(config.output)
    assert rows["zz-new.jpg"]["instances"] == rows[next(iter(images))]["instances"]

    network.write_bytes(OpenVinoNetwork(b"another", b"one").to_bytes())
    write_files(config.inputs[0], {"zzz-newer.jpg": next(iter(images.values()))})
    with pytest.raises(JobError, match="not the int8 network"):
        run(config)


def test_the_sample_is_the_same_every_time(labelled):
    config, _ = labelled
    output = Output.at(config.output)
    parts = [part for generation in read_generations(output) for part in generation.parts]
    chosen = sample_rows(output, parts, 5)
    assert len({row["image_id"] for row in chosen}) == 5
    assert sample_rows(output, parts, 5) == chosen
    assert len(sample_rows(output, parts, 500)) == sum(part.images for part in parts)


def test_a_lake_without_a_readable_image_is_told(tmp_path, checkpoint):
    write_files(str(tmp_path / "lake"), {"broken.jpg": b"\xff\xd8\xff broken"})
    config = LabelConfig((str(tmp_path / "lake"),), str(tmp_path / "out"), weights=checkpoint, precision="int8")
    with pytest.raises(JobError, match="none of 1 sampled ones can be read"):
        run(config)


@pytest.mark.parametrize("options", [{"engine": "compiled"}, {"device": "cuda"}])
def test_int8_elsewhere_is_refused(tmp_path, checkpoint, options):
    with pytest.raises(UsageError, match="--precision int8"):
        run(LabelConfig(("lake",), str(tmp_path), weights=checkpoint, precision="int8", **options))
