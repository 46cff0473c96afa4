"""The label job with a stand-in for its model, and the figures that are drawn from such runs."""

from __future__ import annotations

import json
import math
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from benchmarks.scale.figures import make_figures, markdown_table, memory_plot, slope
from benchmarks.scale.plain_loop import PlainLoop, run_plain_loop
from benchmarks.scale.stand_in import StandInPredictor, fixed_detections, save_stand_in_checkpoint, write_lake
from benchmarks.scale.watch import ProcessTree, Sample, Watched
from jobs import label
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime.errors import UsageError
from jobs.table.output import Output

IMAGES = 300


@pytest.fixture(scope="module")
def labelled(local_ray, tmp_path_factory) -> LabelConfig:
    folder = tmp_path_factory.mktemp("scale")
    write_lake(folder / "lake", IMAGES, images_per_shard=70)
    save_stand_in_checkpoint(folder / "weights.safetensors")
    config = LabelConfig(
        (str(folder / "lake"),),
        str(folder / "out"),
        weights=str(folder / "weights.safetensors"),
        precision="float32",
        images_per_part=128,
    )
    assert label_lake(config, make_predictor=StandInPredictor).exit_code == 0
    return config


def test_the_books_balance_and_every_row_is_the_stand_ins(labelled):
    output = Path(labelled.output)
    rows = [row for file in sorted((output / "labels").iterdir()) for row in pq.read_table(file).to_pylist()]
    manifest = pq.read_table(output / "manifest")["image_id"].to_pylist()
    assert [row["image_id"] for row in rows] == manifest
    assert len(set(manifest)) == IMAGES
    counts = json.loads((output / "run.json").read_text())["counts"]
    assert (counts["images"], counts["ok"], counts["instances"]) == (IMAGES, IMAGES, 4 * IMAGES)
    for row in rows[::50]:
        expected = fixed_detections(row["height"], row["width"])
        assert [instance["mask"] for instance in row["instances"]] == [rle["counts"] for rle in expected.masks]
        decoded = coco_mask.decode(expected.masks)
        assert decoded.shape[:2] == (row["height"], row["width"])
        assert decoded.sum(axis=(0, 1)).tolist() == [instance["area"] for instance in row["instances"]]
    assert len(list((output / "labels").iterdir())) == 3
    assert Output.at(labelled.output).staged_units() == set()


def test_its_rows_never_mix_with_labels(labelled):
    with pytest.raises(UsageError, match="StandInPredictor"):
        label.run(labelled)


def test_figures_of_a_run_from_its_samples(labelled, tmp_path):
    plain = run_plain_loop(Output.at(labelled.output), tmp_path / "plain", input_size=96, images=100)
    assert 0 < plain.decode_cpu_ms < plain.all_cpu_ms
    samples = [Sample(float(s), 10 * s, 200.0, 100.0 + s, 50.0, 5.0, 0.02 * s) for s in range(IMAGES // 10 + 1)]
    progress = [(sample.seconds, sample.images) for sample in samples]
    figures = make_figures(Watched(0, 40.0, samples, progress), Path(labelled.output), IMAGES, plain)
    assert figures.steady_ms == pytest.approx(100.0)
    assert figures.steady_cpu_ms == pytest.approx(2.0)
    assert figures.orchestration_cpu_ms == pytest.approx(2.0 - plain.decode_cpu_ms)
    assert figures.slope["driver"] == pytest.approx(0.0)
    # one more megabyte with every ten images
    assert figures.slope["workers"] == pytest.approx(1000.0)
    assert (figures.files, figures.staged_left, figures.rows) == (3, 0, IMAGES)
    assert "| published files | 3 |" in markdown_table([figures])
    svg = ElementTree.fromstring(memory_plot(samples, IMAGES))
    assert len(svg.findall("{http://www.w3.org/2000/svg}polyline")) == 4


def test_a_run_that_is_not_whole_has_no_figures(labelled):
    samples = [Sample(1.0, IMAGES + 1, 0, 0, 0, 0, 0)]
    watched = Watched(0, 1.0, samples, [(1.0, IMAGES + 1)])
    with pytest.raises(ValueError, match="in the lake"):
        make_figures(watched, Path(labelled.output), IMAGES + 1, PlainLoop(1, 0.1, 0.2))


def test_a_slope_needs_samples():
    assert math.isnan(slope([Sample(1.0, 50, 1, 1, 1, 1, 1)], "driver", 100))


def test_a_process_tree_counts_its_own_memory_and_time():
    memory, cpu_seconds = ProcessTree(os.getpid()).look()
    assert memory["driver"] > 10
    assert cpu_seconds > 0
