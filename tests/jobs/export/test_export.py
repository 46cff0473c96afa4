"""`yolact export` gives the same labels in every format, read back by the tool that the format is for."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support.tables import CLASS_NAMES, export, failed_row, instance, random_rows, row, write_labels

from jobs.export import run
from jobs.export.formats import FORMATS
from jobs.export.formats.base import DocumentFormat
from jobs.export.formats.coco import Coco
from jobs.export.options import COCO_FORMATS, DOCUMENT_FORMATS, IMAGE_FORMATS, ExportConfig
from jobs.runtime.errors import UsageError
from jobs.table.read import read_labels

ROOT = "s3://lake/photos/"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """60 images in two parts and row groups of 10, so that pieces and files do not coincide."""
    rows = random_rows(60, root=ROOT)
    return write_labels(tmp_path_factory.mktemp("labels") / "out", [rows[:25], rows[25:]], row_group_size=10)


def expected(labels: str, keep=lambda instance: True) -> dict[str, list]:
    """Per image with labels, by its path below the root, the instances that `keep` wants."""
    return {
        image.image_id.removeprefix(ROOT): [i for i in image.instances if keep(i)]
        for image in read_labels(labels)
        if image.ok
    }


def read_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def one_part(output: str) -> str:
    return f"{output}/labels/part-000000.parquet"


def check_coco(coco: COCO, wanted: dict[str, list]) -> None:
    by_name = {image["file_name"]: image for image in coco.dataset["images"]}
    assert set(by_name) == set(wanted)
    assert [c["name"] for c in coco.dataset["categories"]] == list(CLASS_NAMES)
    ids = [a["id"] for a in coco.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for name, instances in wanted.items():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[by_name[name]["id"]]))
        assert [a["score"] for a in annotations] == [pytest.approx(i.score, rel=1e-6) for i in instances]
        for annotation, found in zip(annotations, instances, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), found.mask())
            assert annotation["area"] == found.area
            assert annotation["bbox"] == pytest.approx(found.bbox)
            assert annotation["category_id"] == found.label + 1
            assert not annotation["iscrowd"]


@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_coco_is_read_by_pycocotools(output, tmp_path, segmentation):
    labels = one_part(output)
    export(labels, tmp_path / "coco", segmentation=segmentation)
    check_coco(read_coco(tmp_path / "coco" / "labels.json"), expected(labels))


def test_pieces_on_ray_give_the_same_bytes_as_one_process(output, tmp_path, local_ray):
    export(output, tmp_path / "whole", format="coco")
    export(output, tmp_path / "pieces", format="coco", rows_per_task=7)
    check_coco(read_coco(tmp_path / "pieces" / "labels.json"), expected(output))
    whole, pieces = (json.loads((tmp_path / n / "labels.json").read_text()) for n in ("whole", "pieces"))
    assert whole == pieces
    for name in ("one", "many"):
        export(output, tmp_path / name, format="png", rows_per_task=10**9 if name == "one" else 7)
    one, many = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "many")
    )
    assert one == many


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ({"min_score": 0.6}, lambda i: i.score >= 0.6),
        ({"classes": ("person",)}, lambda i: i.label == 0),
        ({"min_area": 200, "max_area": 900}, lambda i: 200 <= i.area <= 900),
    ],
)
def test_filters_take_instances_and_leave_images(output, tmp_path, options, keep):
    labels = one_part(output)
    wanted = {name: [i for i in found if keep(i)] for name, found in expected(labels).items()}
    assert sum(map(len, wanted.values())) < sum(map(len, expected(labels).values()))
    export(labels, tmp_path / "coco", **options)
    check_coco(read_coco(tmp_path / "coco" / "labels.json"), wanted)


def test_coco_results_score_perfectly_against_their_own_masks(output, tmp_path):
    """Ids come from the ground truth, whose ids are in another order than the table's and have gaps."""
    from pycocotools.cocoeval import COCOeval

    labels = one_part(output)
    export(labels, tmp_path / "truth.json", min_score=0.5)
    truth = json.loads((tmp_path / "truth.json").read_text())
    for image in truth["images"]:
        image["id"] = 1000 - 7 * image["id"]
    for annotation in truth["annotations"]:
        annotation["image_id"] = 1000 - 7 * annotation["image_id"]
        annotation["category_id"] *= 10
    for category in truth["categories"]:
        category["id"] *= 10
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    export(
        labels, tmp_path / "results.json", format="coco-results", min_score=0.5, ids_from=str(tmp_path / "truth.json")
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_mask_scores_rank_coco_results(tmp_path):
    mask = np.ones((4, 5), bool)
    rows = [row("a/b.jpg", (4, 5), [instance(mask, 0, 0.5, mask_score=0.25)])]
    export(write_labels(tmp_path / "out", [rows]), tmp_path / "r.json", format="coco-results")
    [result] = json.loads((tmp_path / "r.json").read_text())
    assert result["score"] == 0.25


def test_geojson_polygons_are_the_masks(output, tmp_path):
    labels = one_part(output)
    export(labels, tmp_path / "geo", format="geojson")
    wanted = expected(labels)
    assert len(list((tmp_path / "geo").rglob("*.geojson"))) == len(wanted)
    for name, instances in wanted.items():
        collection = json.loads((tmp_path / "geo" / name).with_suffix(".geojson").read_text())
        for feature, found in zip(collection["features"], instances, strict=True):
            geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
            assert geometry.is_valid
            height, width = found.rle["size"]
            x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
            assert np.array_equal(shapely.contains_xy(geometry, x, y), found.mask())
            assert feature["properties"]["classification"]["name"] == found.category


def test_png_maps_hold_the_best_instance_of_each_pixel(output, tmp_path):
    labels = one_part(output)
    export(labels, tmp_path / "png", format="png", min_score=0.3)
    classes = json.loads((tmp_path / "png" / "classes.json").read_text())
    assert classes == {"0": "background", **{str(i + 1): name for i, name in enumerate(CLASS_NAMES)}}
    for name, instances in expected(labels).items():
        maps = {}
        for kind in ("instances", "classes"):
            with Image.open((tmp_path / "png" / kind / name).with_suffix(".png")) as image:
                maps[kind] = np.asarray(image).astype(int)
        above = np.zeros_like(maps["instances"], bool)
        for found in (i for i in instances if i.score >= 0.3):
            visible = found.mask() & ~above
            assert np.array_equal(maps["instances"] == found.index + 1, visible)
            assert (maps["classes"][visible] == found.label + 1).all()
            above |= visible
        assert not maps["instances"][~above].any()
        assert not maps["classes"][~above].any()


def test_a_class_map_beyond_255_has_16_bits(tmp_path, monkeypatch):
    big = instance(np.eye(4, dtype=bool), 0, 0.9) | {"label": 300, "category": "class 300"}
    export(write_labels(tmp_path / "out", [[row("a.jpg", (4, 4), [big])]]), tmp_path / "png", format="png")
    with Image.open(tmp_path / "png" / "classes" / "a.png") as image:
        assert np.array_equal(np.asarray(image), np.eye(4) * 301)


@pytest.mark.compute
@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_label_studio_reads_its_tasks(output, tmp_path, segmentation):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    labels = one_part(output)
    export(labels, tmp_path / "ls", format="label-studio", segmentation=segmentation)
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    wanted = {image.image_id: image for image in read_labels(labels) if image.ok}
    assert {task["data"]["image_id"] for task in tasks} == set(wanted)
    for task in tasks:
        image = wanted[task["data"]["image_id"]]
        assert task["data"]["image"] == image.uri
        for region, found in zip(task["predictions"][0]["result"], image.instances, strict=True):
            if segmentation == "rle":
                pixels = brush.decode_rle(region["value"]["rle"]).reshape(image.height, image.width, 4)
                assert np.array_equal(pixels, np.repeat(found.mask()[..., None] * np.uint8(255), 4, axis=2))
                assert region["value"]["brushlabels"] == [found.category]
            else:
                points = np.array(region["value"]["points"]) * np.array([image.width, image.height]) / 100
                flat = np.round(points, 2).ravel().tolist()
                back = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([flat], image.height, image.width)))
                assert np.array_equal(back.astype(bool), found.mask())


@pytest.mark.compute
def test_label_studio_converts_its_tasks_to_coco(output, tmp_path):
    """The SDK's own converter takes labelling interface and tasks, and finds every instance."""
    converter = pytest.importorskip("label_studio_sdk.converter.converter", reason="label-studio-sdk is not installed")
    labels = one_part(output)
    export(labels, tmp_path / "ls", format="label-studio", segmentation="polygons")
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    for task in tasks:  # what a person does who accepts the pre-annotations
        task["annotations"] = [{"id": task["id"], "result": task.pop("predictions")[0]["result"]}]
    (tmp_path / "accepted.json").write_text(json.dumps(tasks))
    config = (tmp_path / "ls" / "label_config.xml").read_text()
    converter.Converter(config, str(tmp_path), download_resources=False).convert_to_coco(
        str(tmp_path / "accepted.json"), str(tmp_path / "converted"), is_dir=False
    )
    converted = json.loads((tmp_path / "converted" / "result.json").read_text())
    assert len(converted["annotations"]) == sum(map(len, expected(labels).values()))
    assert {c["name"] for c in converted["categories"]} == set(CLASS_NAMES)


def test_names_stay_apart_and_inside_the_output(tmp_path):
    mask = np.eye(5, dtype=bool)
    ids = [
        "b/a.jpg",
        "b/a.png",
        "b/shard.tar#a.jpg",
        "b/../../a.jpg",
        "b/x:y?.jpg",
        "b/x_y_.jpg",
        "b/.jpg",
        "b/" + "n" * 300,
    ]
    rows = [row(image_id, (5, 5), [instance(mask, 0, 0.9)]) for image_id in ids]
    target = export(write_labels(tmp_path / "out", [rows]), tmp_path / "deep" / "er" / "png", format="png")
    assert len(list((target / "instances").rglob("*.png"))) == len(ids)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "deep"}


def test_a_table_of_failures_exports_as_nothing(tmp_path):
    labels = write_labels(tmp_path / "out", [[failed_row("a.jpg")], []])
    export(labels, tmp_path / "coco")
    document = json.loads((tmp_path / "coco" / "labels.json").read_text())
    assert (document["images"], document["annotations"]) == ([], [])
    export(labels, tmp_path / "results.json", format="coco-results")
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_the_sets_of_format_names_agree_with_the_formats():
    assert {name for name, kind in FORMATS.items() if issubclass(kind, DocumentFormat)} == DOCUMENT_FORMATS
    assert {name for name, kind in FORMATS.items() if issubclass(kind, Coco)} == COCO_FORMATS
    assert set(FORMATS) >= IMAGE_FORMATS


@pytest.mark.process
def test_what_cannot_be_done_is_said_in_one_line(output, tmp_path):
    def refused(**options) -> str:
        with pytest.raises(UsageError) as error:
            run(ExportConfig(**{"labels": output, "output": str(tmp_path / "x"), "rows_per_task": 10**9, **options}))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no class 'dog' in this table; there are: person, traffic light" in refused(classes=("dog",))
    assert "--min-score 7" in refused(min_score=7.0)
    assert "--tolerance -1" in refused(tolerance=-1.0)
    assert "png is a folder of files" in refused(format="png", output=str(tmp_path / "x.json"))
    for name in set(FORMATS) - IMAGE_FORMATS:
        assert "no place for images" in refused(format=name, pictures="copy")
    assert "names no image by an address" in refused(format="yolo", image_prefix="https://host/")
    assert "only run lengths" in refused(format="coco-results", segmentation="polygons")
    assert "has no COCO ids" in refused(format="yolo", ids_from=str(tmp_path / "x.json"))
    assert "png is a folder of files" in refused(format="png", labels=str(tmp_path / "no labels"), output="x.json")
    (tmp_path / "words").write_text("words")
    assert "not a JSON file" in refused(ids_from=str(tmp_path / "words"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.json").write_text("{}")
    assert "not empty" in refused(output=str(tmp_path / "full"))
