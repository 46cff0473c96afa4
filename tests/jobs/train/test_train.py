"""`yolact train` in small: what it refuses before it starts, what it writes, how it goes on."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import official_stand_in
from support.tables import CLASS_NAMES, instance, row, write_labels
from support.training import draw_plates, read_metrics, train_config

from jobs.runtime.cluster import Node, NodeGroup
from jobs.runtime.errors import JobError, UsageError
from jobs.train import run
from jobs.train.command import _describe, _with_objects_only, model_config_for
from jobs.train.data import ImageSet, open_image_set
from jobs.train.log import TrainingLog
from jobs.train.options import RECIPES, TrainConfig, check_workers, resolve_settings, steps_of_epochs
from jobs.train.room import MOST_LOADERS, NodeShare, check_room, share_of_node
from jobs.train.validation import detect_images, detect_with, validate
from jobs.train.worker import Worker
from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, Annotation
from yolact.config import CONFIGS, NmsConfig
from yolact.inference.predictor import Predictor
from yolact.network.model import build_yolact
from yolact.training.optimisation import STEP_MILESTONES, learning_rate_at
from yolact.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray, pycocotools and tensorboardX warn about their own code


def config(**options):
    return TrainConfig(**{"annotations": "a.json", "output": "out", "config": "nuclei", **options})


def test_recipes_fill_what_flags_leave_open():
    paper = resolve_settings(config(config="yolact_resnet50"))
    assert (paper.recipe, paper.max_steps, paper.optimizer) == ("paper", 800_000, "sgd")
    assert paper.peak_learning_rate == pytest.approx(1e-3)
    nuclei = resolve_settings(config())
    assert (nuclei.recipe, nuclei.recipe_reason) == ("nuclei", "--config nuclei")
    started = resolve_settings(config(config=None, init_weights="nuclei"))
    assert (started.recipe, started.recipe_reason) == ("nuclei", "--init-weights nuclei")
    assert resolve_settings(config(config="yolact_base", weight_decay=0.0)).weight_decay == 0


def test_a_larger_batch_scales_the_rate_and_divides_the_steps():
    wide = resolve_settings(config(config="yolact_base", batch_size=64))
    assert wide.peak_learning_rate == pytest.approx(8e-3)
    assert wide.max_steps == 100_000
    rates = [
        learning_rate_at(step, peak=8e-3, max_steps=wide.max_steps, warmup_steps=wide.warmup_steps)
        for step in (34_999, 35_000, 93_749, 93_750)  # 280,000 and 750,000 steps of 8 images
    ]
    assert rates == pytest.approx([8e-3, 8e-4, 8e-6, 8e-7])
    narrow = resolve_settings(config(batch_size=2))  # of the recipe's 4
    assert narrow.max_steps == 2 * RECIPES["nuclei"].max_steps
    assert resolve_settings(config(batch_size=64, max_steps=500)).max_steps == 500


def test_bad_settings_are_bad_usage():
    with pytest.raises(UsageError, match="recipe 'secret' is unknown"):
        resolve_settings(config(recipe="secret"))
    with pytest.raises(UsageError, match="--max-steps 0"):
        resolve_settings(config(max_steps=0))
    with pytest.raises(UsageError, match="--loader-processes -1 must be at least 0"):
        resolve_settings(config(loader_processes=-1))
    with pytest.raises(UsageError, match="unknown config 'yolo'"):
        model_config_for(config(config="yolo"), AnnotatedImages((), {1: "a"}))


def test_epochs_and_milestones_give_the_length_and_the_schedule():
    assert [steps_of_epochs(epochs, 10, 4) for epochs in (1, 2, 0.1)] == [3, 5, 1]
    assert resolve_settings(config(milestones=(0.5, 0.9))).milestones == (0.5, 0.9)
    assert resolve_settings(config()).milestones == STEP_MILESTONES
    with pytest.raises(UsageError, match="--epochs and --max-steps both give the length"):
        resolve_settings(config(epochs=2, max_steps=5))
    with pytest.raises(UsageError, match="--epochs 0 must be above 0"):
        resolve_settings(config(epochs=0))
    for wrong in ((0.9, 0.5), (0.5, 1.5), (0.5, 0.5)):
        with pytest.raises(UsageError, match="between 0 and 1, and rising"):
            resolve_settings(config(milestones=wrong))


def test_workers_that_cannot_share_the_batch_are_bad_usage():
    def workers(**options):
        options = config(**options)
        return check_workers(options, resolve_settings(options))

    assert workers(config="yolact_base", num_workers="2:8") == (2, 8)
    with pytest.raises(UsageError, match="a batch of 8 images cannot be shared by 9 workers; use at most 8"):
        workers(config="yolact_base", num_workers="2:9")
    with pytest.raises(UsageError, match="only GPU workers can share batch norm"):
        workers(num_workers="2", freeze_batch_norm=False)


@pytest.mark.parametrize(
    ("workers", "use_gpu", "fits"),
    [(3, False, True), (4, False, False), (2, True, True), (3, True, False)],
)
def test_workers_that_a_cluster_can_never_hold_are_refused(workers, use_gpu, fits):
    """Two nodes: halves of CPUs hold no worker, and a GPU without a CPU neither."""
    nodes = [Node(2.5, 1), Node(1, 4)]
    groups = [NodeGroup(node, 1) for node in nodes]
    for present, grows in ((nodes, None), ([Node(0, 0)], groups), (nodes[:1], groups)):
        if fits:
            check_room(present, grows, workers, NodeShare(1, 1), use_gpu)
        else:
            with pytest.raises(UsageError, match=f"{workers} training workers cannot be scheduled"):
                check_room(present, grows, workers, NodeShare(1, 1), use_gpu)
    check_room([Node(0, 0)], None, workers, NodeShare(1, 1), use_gpu)


def test_gpu_workers_share_the_cpus_of_their_node_and_reserve_them():
    def share(nodes, groups=None, **options):
        return share_of_node(config(**options), nodes, groups)

    assert share([Node(8, 0)]) == NodeShare(1, 1)
    assert share([Node(8, 0)], loader_processes=0) == NodeShare(1, 0)
    gpus = {"use_gpu": True}
    assert share([Node(16, 2), Node(64, 0)], **gpus) == NodeShare(8, 7)
    assert share([Node(16, 2)], [NodeGroup(Node(12, 4), 3)], **gpus) == NodeShare(3, 2)
    assert share([Node(208, 8)], **gpus) == NodeShare(MOST_LOADERS + 1, MOST_LOADERS)
    assert share([Node(2, 2)], **gpus) == NodeShare(1, 1)
    assert share([Node(16, 1)], loader_processes=4, **gpus) == NodeShare(5, 4)
    check_room([Node(16, 2)], None, 2, NodeShare(8, 7), True)
    with pytest.raises(UsageError, match=r"each takes 9 CPUs and a GPU, .* has room for 1; .* or --loader"):
        check_room([Node(16, 2)], None, 2, NodeShare(9, 8), True)


def test_more_workers_than_cpus_end_at_once_in_one_line(local_ray, tmp_path, plates):
    with pytest.raises(UsageError, match=r"3 training workers cannot be scheduled: .* has room for 2;"):
        run(train_config(tmp_path, plates, num_workers="3", batch_size=4, freeze_batch_norm=True))


@pytest.mark.parametrize(
    ("batch_size", "num_workers", "device", "frozen"),
    [(8, 1, "cpu", False), (5, 1, "cpu", True), (8, 2, "cuda", True), (48, 8, "cuda", False), (47, 8, "cuda", True)],
)
def test_the_papers_recipe_freezes_batch_norm_below_six_images_per_worker(batch_size, num_workers, device, frozen):
    settings = resolve_settings(config(config="yolact_base", batch_size=batch_size))
    worker = object.__new__(Worker)
    worker.settings, worker.num_workers, worker.device = settings, num_workers, torch.device(device)
    assert worker._decide_batch_norm() is frozen


def test_the_configs_limit_of_masks_holds_unless_a_flag_says_otherwise():
    data = AnnotatedImages((), {1: "a"})
    assert model_config_for(config(config="yolact_im700"), data).max_masks_per_image == 300
    assert model_config_for(config(config="yolact_base"), data).max_masks_per_image == 100
    assert model_config_for(config(config="yolact_base", max_masks_per_image=7), data).max_masks_per_image == 7


def test_images_without_objects_are_left_out():
    box = Annotation(1, 1, (0, 0, 4, 4), [[0, 0, 4, 0, 4, 4]])
    crowd = replace(box, is_crowd=True)
    images = tuple(
        AnnotatedImage(number, f"{number}.png", 8, 8, annotations)
        for number, annotations in enumerate([(box,), (), (crowd,), (crowd, box)])
    )
    said = []
    kept = _with_objects_only(ImageSet(AnnotatedImages(images, {1: "a"}), str.encode), said.append)
    assert [image.image_id for image in kept.data.images] == [0, 3]
    assert said == ["2 of 4 images have no objects and are left out"]


def test_the_recipe_is_said_and_a_run_shorter_than_its_warm_up_warns(caplog):
    said = []
    data = AnnotatedImages((), {1: "a"})
    _describe(resolve_settings(config(config=None, init_weights="nuclei", max_steps=20)), data, said.append)
    assert "recipe nuclei (--init-weights nuclei): 20 steps of 4 images, adamw at 0.0007" in said[1]
    assert said[1].endswith("augmentation microscopy")
    assert "the run of 20 steps ends within its warm-up of 100" in caplog.text
    caplog.clear()
    _describe(resolve_settings(config()), data, said.append)
    assert caplog.text == ""


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


def test_losses_that_are_not_finite_stop_it_by_name_and_a_further_run_goes_on_behind_them(local_ray, tmp_path, plates):
    hopeless = train_config(
        tmp_path, plates, optimizer="sgd", learning_rate=1e18, clip_gradient=0.0, max_steps=30, checkpoint_every=100
    )
    with pytest.raises(
        JobError, match=r"stopped at step (\d+): 5 steps in a row .*the \w+ loss with images \["
    ) as first:
        run(hopeless)
    with pytest.raises(JobError, match="stopped at step") as second:
        run(hopeless)
    before, after = (int(re.search(r"at step (\d+)", str(error.value))[1]) for error in (first, second))
    assert after == before + 5
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    skipped = [line for line in lines if "skipped" in line]
    assert skipped[-1] == {**skipped[-1], "step": after, "skipped": len(skipped)}


@pytest.fixture
def damaged_plates(tmp_path, plates):
    """Plates of which one is damaged in the middle of its file: its ends look right."""
    folder = tmp_path / "damaged"
    shutil.copytree(plates["images"], folder)
    path = sorted(folder.iterdir())[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    path.write_bytes(data)
    return {**plates, "images": str(folder)}, path.name


def test_an_image_damaged_in_the_middle_stops_all_workers_and_is_not_tried_again(
    local_ray, tmp_path, damaged_plates, capsys
):
    data, name = damaged_plates
    with pytest.raises(JobError, match=rf"{re.escape(name)}.*; correct the image, or leave it out with --skip-broken"):
        run(train_config(tmp_path, data, num_workers="2", freeze_batch_norm=True, max_failures=3))
    assert capsys.readouterr().out.count("initial weights from") == 1


def test_a_damaged_image_is_left_out_if_asked_to(local_ray, tmp_path, damaged_plates):
    data, _ = damaged_plates
    validation = {"val_annotations": data["annotations"], "val_images": data["images"]}
    assert run(train_config(tmp_path, data, **validation, skip_broken=True, max_steps=3)) == 0


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


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_lines_after_the_checkpoint_are_dropped_when_a_run_goes_on(tmp_path, scheme):
    output = f"{scheme}{tmp_path}/run"
    (tmp_path / "run").mkdir()
    log = TrainingLog(output, 0, 10, print_line=print)
    for step in range(1, 6):
        log.step(step, {"box": 1.0}, 1e-3, 4)
    (tmp_path / "run" / "metrics.jsonl").open("a").write('{"step": 6, "lo')  # the writer was killed here
    TrainingLog(output, 3, 10, print).close()
    assert set(read_metrics(tmp_path / "run")) == {1, 2, 3}


@pytest.mark.compute
def test_a_validation_shows_its_progress(tmp_path, plates):
    lines = []
    log = TrainingLog(str(tmp_path), 0, 10, lines.append, progress_seconds=0.0)
    images = open_image_set(plates["annotations"], plates["images"], "validation set")
    count = len(images.data.images)
    model = build_yolact(model_config_for(train_config(tmp_path, plates), images.data))
    validate(model, images, "cpu", report=lambda done: log.validation_progress(done, count))
    log.close()
    assert lines == [f"validating: {done} of {count} images" for done in range(1, count + 1)]


def test_a_validation_gives_the_network_whole_batches(tmp_path, plates):
    """And what it finds does not depend on the size of the batches."""
    images = open_image_set(plates["annotations"], plates["images"], "validation set")
    torch.manual_seed(0)
    model = build_yolact(model_config_for(train_config(tmp_path, plates), images.data)).eval()
    found, batches = {}, []
    for size in (1, 3):
        predict = Predictor(model, device="cpu", score_threshold=0.0, batch_size=size)
        start = predict._engine.start
        predict._engine.start = lambda pixels, start=start: (batches.append(len(pixels)), start(pixels))[1]
        found[size] = list(detect_with(predict, images, range(8)))
    assert batches == [1] * 8 + [3] * 3
    assert len(found[1]) > 0
    for one, other in zip(found[1], found[3], strict=True):
        assert (one.image_id, one.category_id) == (other.image_id, other.category_id)
        assert one.score == pytest.approx(other.score, rel=1e-4)


def test_validation_keeps_the_scores_of_other_classes_below_the_floor(tmp_path, plates):
    """As the release: an anchor counts if its best score is above the floor, then with all its classes."""
    images = open_image_set(plates["annotations"], plates["images"], "validation set")
    data = replace(images.data, categories={1: "nucleus", 2: "other"})
    tiny = model_config_for(train_config(tmp_path, plates), data)
    torch.manual_seed(0)
    model = build_yolact(replace(tiny, nms=NmsConfig(score_floor=0.3)))
    with torch.no_grad():
        model.head.class_layer.bias.view(-1, 3)[:] = torch.tensor([0.0, 2.0, -2.0])
    found = list(detect_images(model, replace(images, data=data), "cpu", range(2)))
    scores = {category: [one.score for one in found if one.category_id == category] for category in (1, 2)}
    assert min(scores[1]) > 0.3
    assert 0 < min(scores[2]) < 0.3
