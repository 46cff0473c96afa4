"""`yolact train` in small: what it refuses before it starts, what it writes, how it goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.models import official_stand_in
from support.tables import CLASS_NAMES, instance, row, write_labels
from support.training import draw_plates, read_metrics, train_config

from jobs.runtime.errors import JobError, UsageError
from jobs.train import run
from jobs.train.command import model_config_for
from jobs.train.log import TrainingLog
from jobs.train.options import TrainConfig, resolve_settings
from yolact.coco.annotations import AnnotatedImages
from yolact.config import CONFIGS
from yolact.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray, pycocotools and tensorboardX warn of their own affairs


def config(**options):
    return TrainConfig(**{"annotations": "a.json", "output": "out", "config": "nuclei", **options})


def test_recipes_fill_what_flags_leave_open():
    paper = resolve_settings(config(config="yolact_resnet50"))
    assert (paper["recipe"], paper["max_steps"], paper["optimizer"]) == ("paper", 800_000, "sgd")
    assert paper["peak_learning_rate"] == pytest.approx(1e-3)
    assert resolve_settings(config())["recipe"] == "nuclei"
    wide = resolve_settings(config(config="yolact_base", batch_size=64, weight_decay=0.0))
    assert wide["peak_learning_rate"] == pytest.approx(8e-3)  # linear scaling
    assert wide["weight_decay"] == 0


def test_bad_settings_are_bad_usage():
    with pytest.raises(UsageError, match="recipe 'secret' is unknown"):
        resolve_settings(config(recipe="secret"))
    with pytest.raises(UsageError, match="--max-steps 0"):
        resolve_settings(config(max_steps=0))
    with pytest.raises(UsageError, match="unknown config 'yolo'"):
        model_config_for(config(config="yolo"), AnnotatedImages((), {1: "a"}))


def test_windows_larger_than_the_input_are_bad_usage(tmp_path, plates):
    with pytest.raises(UsageError, match="--window-size 512 is larger than the input of tiny, 64"):
        run(train_config(tmp_path, plates, window_size=512))


def test_the_datas_classes_and_ablations_go_into_the_config():
    data = AnnotatedImages((), {5: "a", 9: "b"})
    changed = model_config_for(config(config="yolact_base", num_prototypes=8, semantic_loss=False), data)
    assert (changed.class_names, changed.num_prototypes, changed.semantic_branch) == (("a", "b"), 8, False)
    assert changed.official is None


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return draw_plates(tmp_path_factory.mktemp("plates"))


def test_broken_annotations_stop_it_before_it_starts_unless_left_out(tmp_path, plates, capsys):
    truth = json.loads(Path(plates["annotations"]).read_text())
    truth["annotations"][3]["bbox"][2] = 0
    truth["images"].append({"id": 77, "file_name": "gone.png", "height": 64, "width": 64})
    (tmp_path / "broken.json").write_text(json.dumps(truth))
    broken = {**plates, "annotations": str(tmp_path / "broken.json")}
    with pytest.raises(UsageError, match="2 broken annotations or images"):
        run(train_config(tmp_path, broken))
    printed = capsys.readouterr().err
    assert "annotation 4 of image 2 has a box 0 px wide" in printed
    assert "image 77 file 'gone.png' is not there" in printed


def test_a_run_writes_models_metrics_and_goes_on(local_ray, tmp_path, plates, capsys):
    first = train_config(
        tmp_path,
        plates,
        val_annotations=plates["annotations"],
        val_images=plates["images"],
        validate_every=4,
        stop_after=4,
    )
    assert run(first) == 0
    output = Path(first.output)
    printed = capsys.readouterr().out
    assert "step 4/6  loss" in printed
    assert "validation at step 4: mask_ap" in printed
    assert set(read_metrics(output)) == {1, 2, 3, 4}
    assert list((output / "tensorboard").iterdir())

    whole = train_config(tmp_path, plates, val_annotations=plates["annotations"], val_images=plates["images"])
    assert run(whole) == 0
    assert "going on from step 4" in capsys.readouterr().out
    steps = read_metrics(output)
    assert set(steps) == {1, 2, 3, 4, 5, 6}
    assert all(math.isfinite(values["loss"]) for values in steps.values())
    for name in ("best", "last"):
        model = load_checkpoint(output / f"{name}.safetensors")
        assert model.config.class_names == ("nucleus",)


def test_a_loss_that_is_not_finite_stops_it_by_name_step_and_images(local_ray, tmp_path, plates):
    hopeless = train_config(tmp_path, plates, optimizer="sgd", learning_rate=1e18, clip_gradient=0.0)
    with pytest.raises(JobError, match=r"step [23]: .*the \w+ loss with images \[.*\] is not finite"):
        run(hopeless)


def test_labels_can_be_learnt_from(local_ray, tmp_path):
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 50), bool)
    mask[8:30, 10:36] = True
    rows = []
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
        uri = str(tmp_path / name)
        rows.append(row(uri, (40, 50), [instance(mask, 1, 0.8), instance(mask, 0, 0.2)]))
    write_labels(tmp_path / "labelled", [rows])
    labelled = {"annotations": str(tmp_path / "labelled")}
    assert run(train_config(tmp_path, labelled, max_steps=2, batch_size=2)) == 0
    model = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert model.config.class_names == CLASS_NAMES


def test_everything_of_a_run_can_stand_in_an_object_store(local_ray, s3, tmp_path, plates, capsys):
    lake = s3.prefix("train")
    filesystem = s3.filesystem()
    filesystem.put(plates["images"], f"{lake}/images", recursive=True)
    filesystem.put(plates["annotations"], f"{lake}/truth.json")
    there = {"annotations": f"{lake}/truth.json", "images": f"{lake}/images"}
    options = {
        "val_annotations": there["annotations"],
        "val_images": there["images"],
        "output": f"{lake}/runs/first",
        "max_steps": 4,
    }
    assert run(train_config(tmp_path, there, **options, stop_after=2)) == 0
    assert run(train_config(tmp_path, there, **options)) == 0
    assert "going on from step 2" in capsys.readouterr().out
    for name in ("best", "last"):
        assert load_checkpoint(f"{lake}/runs/first/{name}.safetensors").config.class_names == ("nucleus",)
    lines = filesystem.cat_file(f"{lake}/runs/first/metrics.jsonl").decode().splitlines()
    assert [values["step"] for values in map(json.loads, lines) if "loss" in values] == [1, 2, 3, 4]
    assert filesystem.ls(f"{lake}/runs/first/tensorboard")


def test_fine_tuning_from_an_official_file_says_what_it_re_made(local_ray, tmp_path, plates, capsys):
    small = replace(CONFIGS["yolact_resnet50"], name="small", input_size=138, official=None)
    (tmp_path / "small.json").write_text(json.dumps(small.to_dict()))
    official = official_stand_in("yolact_resnet50", tmp_path)
    options = {"config": str(tmp_path / "small.json"), "init_weights": str(official), "freeze_batch_norm": True}
    assert run(train_config(tmp_path, plates, **options, max_steps=2, batch_size=2)) == 0
    printed = capsys.readouterr().out
    assert "4 re-made (head.class_layer.weight, head.class_layer.bias, semantic.weight, semantic.bias)" in printed
    assert "not in it" not in printed
    assert load_checkpoint(tmp_path / "run/last.safetensors").config.class_names == ("nucleus",)


def test_lines_after_the_checkpoint_are_dropped_when_a_run_goes_on(tmp_path):
    output = str(tmp_path / "run")
    (tmp_path / "run").mkdir()
    log = TrainingLog(output, 0, 10, print)
    for step in range(1, 6):
        log.step(step, {"box": 1.0}, 1e-3, 4)
    (tmp_path / "run" / "metrics.jsonl").open("a").write('{"step": 6, "lo')  # the writer was killed here
    TrainingLog(output, 3, 10, print).close()
    assert set(read_metrics(tmp_path / "run")) == {1, 2, 3}
