"""Exports of a lake as people have them, read by the tools that people use: folders, shards, odd names, crowds."""

from __future__ import annotations

import contextlib
import io
import json
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.lakes import draw_images, tar_bytes
from support.tables import CLASS_NAMES, export, instance, row, write_labels
from support.ultralytics_reader import load_yolo

from jobs.export.formats.label_studio import LOCAL_FILES
from jobs.lake import expand_inputs
from jobs.lake.index import index_source
from jobs.runtime.errors import UsageError
from jobs.table import parquet as tables
from jobs.table.read import LabelRow, read_labels

NAMES = [
    "train/images/a.jpg",
    "train/images_/a.jpg",
    "images/images/b.jpg",
    "labels/b.jpg",
    "a b & c/ünï%20c#de;1.jpg",
    "dotted.name/v1.2.final.JPG",
]
MANY = 400


def many_instances(height: int, width: int) -> list[dict]:
    """A grid of 400 squares of 3 × 3 px, in scores from high to low; they touch nobody."""
    found = []
    for number in range(MANY):
        y, x = divmod(number, 25)
        mask = np.zeros((height, width), bool)
        mask[4 * y : 4 * y + 3, 4 * x : 4 * x + 3] = True
        found.append(instance(mask, number % 3, 1 - number / 1000))
    return found


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """An OUTPUT over loose files in folders and a tar shard; the first image has 400 instances, each other one two."""
    folder = tmp_path_factory.mktemp("odd")
    lake = folder / "lake"
    images = list(draw_images(len(NAMES) + 2, seed=3).values())
    stream = io.BytesIO()
    Image.new("RGB", (100, 64), (90, 120, 30)).save(stream, "JPEG")
    images[0] = stream.getvalue()
    for name, data in zip(NAMES, images, strict=False):
        path = lake / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    members = [("images/m 1.jpg", images[-2]), ("x/m#2.jpg", images[-1])]
    (lake / "shard 0.tar").write_bytes(tar_bytes(members))
    content = {str(lake / name): data for name, data in zip(NAMES, images, strict=False)}
    index = [index_source(source) for source in expand_inputs([str(lake)])]
    rows = []
    for entry in (entry for table in index for entry in table.to_pylist()):
        data = content.get(entry["image_id"]) or dict(members)[entry["image_id"].split("#", 1)[1]]
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        if data is images[0]:
            found = many_instances(height, width)
        else:
            masks = np.zeros((2, height, width), bool)
            masks[0, 5:30, 8:40], masks[1, 33:50, 10:30] = True, True
            found = [instance(mask, label, 0.9 - 0.2 * label) for label, mask in enumerate(masks)]
        rows.append(row(entry["image_id"], (height, width), found, uri=entry["uri"]))
    labels = write_labels(folder / "out", [rows])
    (folder / "out" / "manifest").mkdir()
    (folder / "out" / "manifest" / "part-000000.parquet").write_bytes(tables.to_bytes(pa.concat_tables(index)))
    return labels


def labelled(output: str) -> list[LabelRow]:
    return [image for image in read_labels(output) if image.ok]


def test_ultralytics_finds_the_labels_of_every_image(output, tmp_path, monkeypatch):
    target = export(output, tmp_path / "yolo", format="yolo")
    _, loaded = load_yolo(target, tmp_path / "cfg", monkeypatch)
    wanted = labelled(output)
    assert sorted(len(label["cls"]) for label in loaded.labels) == sorted(len(image.instances) for image in wanted)
    assert len(loaded.labels) == len(NAMES) + 2


def test_supervision_reads_the_yolo_and_coco_folders(output, tmp_path):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed (tests/readers.txt)")
    target = export(output, tmp_path / "coco", format="coco", pictures="copy")
    coco = supervision.DetectionDataset.from_coco(
        images_directory_path=str(target / "images"), annotations_path=str(target / "labels.json"), force_masks=True
    )
    by_size = sorted((image.height, image.width, len(image.instances)) for image in labelled(output))
    assert sorted((*image.shape[:2], len(found)) for _, image, found in coco) == by_size
    areas = sorted(int(mask.sum()) for _, _, found in coco for mask in found.mask)
    assert areas == sorted(i.area for image in labelled(output) for i in image.instances)


@pytest.mark.compute
def test_coco_results_have_the_areas_of_their_masks(output, tmp_path):
    """With a bbox beside the mask, loadRes takes the area of the box, and AP by size means something else."""
    export(output, tmp_path / "truth.json", format="coco")
    results = export(output, tmp_path / "r.json", format="coco-results", ids_from=str(tmp_path / "truth.json"))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        found = coco.loadRes(str(results))
        evaluation = COCOeval(coco, found, "segm")
        evaluation.params.maxDets = [1, 10, MANY]
        evaluation.evaluate()
        evaluation.accumulate()
    truth_areas = sorted(annotation["area"] for annotation in coco.dataset["annotations"])
    assert sorted(int(annotation["area"]) for annotation in found.dataset["annotations"]) == truth_areas
    assert all("bbox" not in entry for entry in json.loads(results.read_text()))
    with pytest.raises(UsageError, match="loadRes reads only run lengths"):
        export(output, tmp_path / "p.json", format="coco-results", segmentation="polygons")


def test_ids_from_goes_with_a_choice_of_classes(output, tmp_path):
    """The ids' file has only the class that is asked for; the table's other classes need none."""
    export(output, tmp_path / "truth.json", format="coco")
    truth = json.loads((tmp_path / "truth.json").read_text())
    truth["categories"] = [{"id": 44, "name": CLASS_NAMES[0]}]
    (tmp_path / "one.json").write_text(json.dumps(truth))
    for kind, target in (("coco", tmp_path / "c.json"), ("coco-results", tmp_path / "cr.json")):
        export(output, target, format=kind, ids_from=str(tmp_path / "one.json"), classes=(CLASS_NAMES[0],))
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["categories"] == [{"id": 44, "name": CLASS_NAMES[0]}]
    assert {a["category_id"] for a in document["annotations"]} == {44}


def test_webdataset_decodes_to_every_instance(output, tmp_path):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed (tests/readers.txt)")
    target = export(output, tmp_path / "wds", format="webdataset")
    shards = sorted(str(path) for path in target.glob("*.tar"))
    wanted = {image.image_id: image for image in labelled(output)}
    samples = list(wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))
    assert len(samples) == len(wanted)
    for sample in samples:
        image = wanted[sample["json"]["image_id"]]
        values = np.asarray(sample["instances.png"]).astype(int)
        ids = values[..., 0] + 256 * values[..., 1]
        assert [int((ids == i.index + 1).sum()) for i in image.instances] == [i.area for i in image.instances]
    assert max(len(image.instances) for image in wanted.values()) == MANY


def test_label_studio_can_open_every_image(output, tmp_path):
    """Local files and members of shards are copied, and named as Label Studio serves local files."""
    target = export(output, tmp_path / "ls", format="label-studio", segmentation="polygons")
    tasks = json.loads((target / "tasks.json").read_text())
    wanted = {image.image_id: image for image in labelled(output)}
    assert len(tasks) == len(wanted)
    for task in tasks:
        address = task["data"]["image"]
        assert address.startswith(LOCAL_FILES)
        with Image.open(target / unquote(address.removeprefix(LOCAL_FILES))) as image:
            assert image.size[::-1] == (wanted[task["data"]["image_id"]].height, wanted[task["data"]["image_id"]].width)


def test_label_studio_takes_a_prefix_instead(output, tmp_path):
    target = export(output, tmp_path / "ls", format="label-studio", image_prefix="https://images.example/lake/")
    tasks = json.loads((target / "tasks.json").read_text())
    assert not (target / "images").exists()
    root = json.loads((export(output, tmp_path / "c.json", format="coco")).read_text())["info"]["images_root"]
    for task in tasks:
        assert unquote(task["data"]["image"]).removeprefix("https://images.example/lake/") == task["data"][
            "image_id"
        ].removeprefix(root)
    with pytest.raises(UsageError, match="--image-prefix: coco names no image by an address"):
        export(output, tmp_path / "x", format="coco", image_prefix="https://images.example/")


def test_images_of_a_store_keep_their_address(tmp_path):
    rows = [row("s3://lake/a b.jpg", (4, 5), [instance(np.ones((4, 5), bool), 0, 0.9)])]
    target = export(write_labels(tmp_path / "out", [rows]), tmp_path / "ls", format="label-studio")
    assert json.loads((target / "tasks.json").read_text())[0]["data"]["image"] == "s3://lake/a b.jpg"


def test_empty_masks_are_counted(tmp_path, capsys):
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    found = [instance(full, 0, 0.9), instance(empty, 1, 0.8), instance(empty, 1, 0.2)]
    labels = write_labels(tmp_path / "out", [[row("a/b.jpg", (4, 5), found)]])
    export(labels, tmp_path / "c.json", format="coco", min_score=0.5)
    assert "left out 1 instances whose mask has no pixel" in capsys.readouterr().out
