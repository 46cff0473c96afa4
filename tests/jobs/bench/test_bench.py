"""`yolact bench`: its arithmetic, and the whole command on a small model."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from support.models import save_tiny_checkpoint

from benchmarks.regressions import regressions
from benchmarks.start_up import StartUpBenchConfig, first_unit
from jobs.bench import run
from jobs.bench.bill import PER_MILLION
from jobs.bench.options import BenchConfig
from jobs.bench.speed_table import estimate, spread
from jobs.bench.utilisation import UtilisationSampler, gpu_percents_in
from jobs.label.pipeline.passes import Totals
from jobs.label.pipeline.unit import UnitRecord
from jobs.runtime.errors import JobError, UsageError


def test_estimate():
    values = estimate(images=3_600_000, devices=5, price_per_hour=2.0, per_device=100.0)
    assert values["hours"] == pytest.approx(2.0)
    assert values["money"] == pytest.approx(20.0)
    assert values["money_per_million_images"] == pytest.approx(20 / 3.6)
    assert estimate(10, 1, None, 1.0)["money"] is None


def test_gpu_utilisation_is_read_from_nvidia_smi():
    one = "<gpu><utilization><gpu_util>{}</gpu_util><memory_util>9 %</memory_util></utilization></gpu>"
    assert gpu_percents_in(one.format("37 %") + one.format("N/A") + one.format("100 %")) == [37.0, 100.0]


def test_spread():
    assert spread([3.0, 1.0, 2.5]) == {"median": 2.5, "min": 1.0, "max": 3.0, "rounds": [3.0, 1.0, 2.5]}


def test_steady_work_begins_after_the_first_unit_of_every_actor():
    totals = Totals(warm_up=2)
    for images in (7, 7):
        totals.add(UnitRecord(0, images=images))
    assert totals.steady().images == 0
    time.sleep(0.05)
    totals.add(UnitRecord(2, images=5))
    steady = totals.steady()
    assert steady.images == 5
    assert 0.05 <= steady.seconds < 5
    assert totals.images == 19


@pytest.mark.compute
def test_a_busy_process_is_seen():
    with UtilisationSampler() as sampler:
        began = time.time()
        while time.time() - began < 2.5:
            pass
    percents = sampler.between(began, time.time())
    assert 0 < percents["CPU"] <= 100
    assert sampler.between(began - 10, began - 5) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"sample": 3},
        {"num_actors": "0"},
        {"num_actors": "4:2"},
        {"score_threshold": 2.0},
        {"price_per_hour": -1.0},
        {"price_per_1000_reads": -1.0},
        {"price_per_1000_writes": float("nan")},
    ],
)
def test_impossible_options(wrong):
    with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
        run(BenchConfig(("lake",), **wrong))


@pytest.mark.timeout(300)
def test_the_whole_command(local_ray, tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    lake = tmp_path / "lake"
    lake.mkdir()
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(lake / f"{index:02}.jpg")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    config = BenchConfig(
        (str(lake),),
        weights=str(save_tiny_checkpoint(tmp_path)),
        precision="float32",
        sample=24,
        rounds=1,
        plain_loop=True,
        images=10**6,
        devices=4,
        price_per_hour=0.5,
        output=str(tmp_path / "bench.json"),
    )
    assert run(config) == 0
    assert list(scratch.iterdir()) == []
    figures = json.loads((tmp_path / "bench.json").read_text())
    rates = {name: values["median"] for name, values in figures["images_per_second"].items()}
    assert set(rates) == {"end_to_end", "model_only", "postprocess_only", "decode_only", "plain_loop"}
    assert all(rate > 0 for rate in rates.values())
    efficiency = rates["end_to_end"] / min(rates["model_only"], rates["decode_only"])
    assert figures["ratios"]["efficiency"]["median"] == pytest.approx(efficiency, rel=1e-2)
    assert figures["images_measured"] == 24
    assert figures["failed_images"] == 0
    assert figures["precision"] == "float32"
    hours = 10**6 / (4 * rates["end_to_end"]) / 3600
    assert figures["estimate"]["hours"] == pytest.approx(hours, rel=1e-2)
    # the lake is loose images
    assert figures["bill"]["requests"] == asdict(PER_MILLION["image"])
    table = capsys.readouterr().out
    for word in (
        "end to end",
        "model only",
        "post-processing only",
        "decode only",
        "efficiency",
        "1,000,000 images",
        "requests of",
    ):
        assert word in table


def test_the_guard_tells_what_became_slower():
    stored = {"a": 10.0, "b": 4.0, "c": 2.0}
    assert regressions(stored, {"a": 7.6, "b": 4.4, "c": 1.6, "new": 1.0}) == []
    assert regressions(stored, {"a": 7.4, "b": 4.0}) == ["a 7.40, was 10.00", "c cannot be measured here"]


@pytest.mark.process
def test_a_start_that_gives_no_label_is_told_in_one_line(tmp_path, capfd):
    with pytest.raises(JobError, match=r"auto: no label after \d+ s: yolact: .*no-such-lake"):
        first_unit(StartUpBenchConfig((str(tmp_path / "no-such-lake"),)), "auto", str(tmp_path / "cache"))
    assert capfd.readouterr() == ("", "")
