"""Exports that copy the images, from plain files and from tar shards: upright, and read by the tools they are for."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.lakes import draw_images, tar_bytes
from support.tables import CLASS_NAMES, export, failed_row, instance, row, write_labels
from support.ultralytics_reader import load_yolo

from jobs.export import run
from jobs.export.options import ExportConfig
from jobs.lake import ParquetColumns, expand_inputs
from jobs.lake.index import index_source
from jobs.runtime.errors import EXIT_TOO_MANY_BAD_IMAGES, UsageError
from jobs.table import parquet as tables
from jobs.table.images import ImageSource, upright
from jobs.table.read import open_labels, read_labels


def turned(data: bytes) -> bytes:
    """The same image stored lying on its side, with the EXIF note that puts it upright."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


def labels_of(image_id: str, uri: str, data: bytes, seed: int) -> dict:
    """A row with up to two blocks as instances, of the image as it is seen."""
    with Image.open(io.BytesIO(upright(data))) as image:
        width, height = image.size
    found = []
    for label in range(seed % 3):
        mask = np.zeros((height, width), bool)
        mask[5 + label : 30, 8 : 40 - 3 * label] = True
        mask[10:14, 12:20] = False
        found.append(instance(mask, label, 0.9 - 0.1 * label))
    return row(image_id, (height, width), found, uri=uri)


@pytest.fixture(scope="module")
def images():
    drawn = draw_images(6)
    names = list(drawn)
    drawn[names[1]] = turned(drawn[names[1]])
    return drawn


@pytest.fixture(scope="module", params=["files", "shards"])
def output(request, tmp_path_factory, images):
    """An OUTPUT with manifest, over loose files or over two tar shards."""
    folder = tmp_path_factory.mktemp(request.param)
    lake = folder / "lake"
    lake.mkdir()
    names = list(images)
    if request.param == "files":
        for name in names:
            (lake / name).write_bytes(images[name])
    else:
        for shard, some in enumerate((names[:4], names[4:])):
            (lake / f"s{shard}.tar").write_bytes(tar_bytes([(f"dir/{name}", images[name]) for name in some]))
    index = [index_source(source) for source in expand_inputs([str(lake)])]
    rows = []
    for entry in (entry for table in index for entry in table.to_pylist()):
        name = entry["image_id"].rsplit("/", 1)[-1]
        rows.append(labels_of(entry["image_id"], entry["uri"], images[name], names.index(name)))
    rows.append(failed_row(str(lake / "broken.jpg")))
    labels = write_labels(folder / "out", [rows])
    (folder / "out" / "manifest").mkdir()
    (folder / "out" / "manifest" / "part-000000.parquet").write_bytes(tables.to_bytes(pa.concat_tables(index)))
    return labels


def by_name(labels: str) -> dict[str, object]:
    return {image.image_id.rsplit("/", 1)[-1]: image for image in read_labels(labels) if image.ok}


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_yolo_is_loaded_by_ultralytics(output, tmp_path, images, monkeypatch):
    target = export(output, tmp_path / "yolo", format="yolo")
    data, loaded = load_yolo(target, tmp_path / "cfg", monkeypatch)
    polygon2mask = pytest.importorskip("ultralytics.data.utils").polygon2mask
    assert data["names"] == dict(enumerate(CLASS_NAMES))
    wanted = by_name(output)
    assert len(loaded.labels) == len(wanted) == 6
    for label in loaded.labels:
        image = wanted[Path(label["im_file"]).name]
        assert label["shape"] == (image.height, image.width)
        assert label["cls"].ravel().tolist() == [i.label for i in image.instances]
        for segment, found in zip(label["segments"], image.instances, strict=True):
            ring = np.round(segment * np.array([image.width, image.height]), 2)
            painted = polygon2mask((image.height, image.width), [ring.ravel()])
            # its painter also fills the pixels on the far side of an edge; nowhere is it off by more than that
            grown = np.pad(found.mask(), 1)
            near = np.any([np.roll(grown, shift, (0, 1)) for shift in np.ndindex(2, 2)], axis=0)[1:-1, 1:-1]
            assert (painted.astype(bool) | found.mask() == painted.astype(bool)).all()
            assert not (painted.astype(bool) & ~near).any()


def test_webdataset_is_read_by_its_library(output, tmp_path, images):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed (tests/readers.txt)")
    target = export(output, tmp_path / "wds", format="webdataset")
    shards = sorted(str(path) for path in target.glob("*.tar"))
    samples = list(wds.WebDataset(shards, shardshuffle=False, empty_check=False))
    wanted = by_name(output)
    assert len(samples) == len(wanted)
    for sample in samples:
        described = json.loads(sample["json"])
        image = wanted[described["image_id"].rsplit("/", 1)[-1]]
        assert (
            pixels(sample["jpg"]).shape[:2] == (image.height, image.width) == (described["height"], described["width"])
        )
        assert [i["mask"]["counts"].encode() for i in described["instances"]] == [
            i.rle["counts"] for i in image.instances
        ]
        with Image.open(io.BytesIO(sample["instances.png"])) as ids:
            top = np.asarray(ids).astype(int)
        for found in reversed(image.instances):
            assert (top[found.mask()] <= found.index + 1).all()
    assert json.loads((target / "classes.json").read_text()) == {str(i): name for i, name in enumerate(CLASS_NAMES)}


def test_images_come_unchanged_or_upright(output, tmp_path, images):
    target = export(output, tmp_path / "coco", format="coco", pictures="copy")
    document = json.loads((target / "labels.json").read_text())
    assert len(document["images"]) == 6
    for number, (name, data) in enumerate(images.items()):
        [entry] = [image for image in document["images"] if image["file_name"].endswith(name)]
        copied = (target / "images" / entry["file_name"]).read_bytes()
        assert pixels(copied).shape[:2] == (entry["height"], entry["width"])
        if number == 1:
            assert copied != data
            assert np.abs(pixels(copied) - pixels(upright(data))).max() <= 3
        else:
            assert copied == data


def test_fiftyone_imports_its_folder(output, tmp_path):
    target = export(output, tmp_path / "fo", format="fiftyone")
    document = json.loads((target / "labels.json").read_text())
    assert all((target / "data" / image["file_name"]).is_file() for image in document["images"])
    coco = pytest.importorskip("fiftyone.utils.coco", reason="fiftyone is not installed")
    importer = coco.COCODetectionDatasetImporter(dataset_dir=str(target), label_types=["segmentations"])
    wanted = by_name(output)
    with importer:
        seen = {Path(path).name: labels for path, _, labels in importer}
    assert set(seen) == set(wanted)
    for name, labels in seen.items():
        detections = [] if labels is None else labels.detections
        assert sorted(d.label for d in detections) == sorted(i.category for i in wanted[name].instances)
        assert sum(int(d.mask.sum()) for d in detections) == sum(i.area for i in wanted[name].instances)


def test_an_image_that_is_gone_is_left_out_and_told(tmp_path, images, capsys):
    lake = tmp_path / "lake"
    lake.mkdir()
    rows = []
    for number, (name, data) in enumerate(list(images.items())[2:5]):
        (lake / name).write_bytes(data)
        rows.append(labels_of(str(lake / name), str(lake / name), data, number))
    labels = write_labels(tmp_path / "out", [rows])
    os.remove(rows[1]["uri"])
    target = tmp_path / "coco"
    assert run(ExportConfig(labels, str(target), pictures="copy")) == EXIT_TOO_MANY_BAD_IMAGES
    assert len(json.loads((target / "labels.json").read_text())["images"]) == 2
    assert "left out 1 images that could not be copied" in capsys.readouterr().out


def test_images_of_a_named_parquet_column_are_found(tmp_path, images):
    """Two columns of images, of which the run was told one: what reads the images back takes it from run.json."""
    names, images = list(images)[2:4], list(images.values())
    path = tmp_path / "lake.parquet"
    pq.write_table(pa.table({"id": names, "before": images[:2], "after": images[2:4]}), path)
    [source] = expand_inputs([str(path)])
    index = index_source(source, ParquetColumns(image="after"))
    found = zip(index.to_pylist(), images[2:4], strict=True)
    rows = [labels_of(entry["image_id"], entry["uri"], data, 1) for entry, data in found]
    labels = write_labels(tmp_path / "out", [rows])
    (tmp_path / "out" / "manifest").mkdir()
    (tmp_path / "out" / "manifest" / "part-000000.parquet").write_bytes(tables.to_bytes(index))
    record = tmp_path / "out" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "identity": {"image_column": "after"}}))
    target = export(labels, tmp_path / "coco", format="coco", pictures="copy")
    assert sorted(file.read_bytes() for file in target.glob("images/**/*") if file.is_file()) == sorted(images[2:4])
    asked = [(entry["image_id"], entry["uri"]) for entry in rows]
    assert ImageSource.of(open_labels(labels)).fetch("part-000000.parquet", asked) == images[2:4]


def test_members_of_shards_need_the_manifest(tmp_path, images):
    [name, *_] = images
    (tmp_path / "s.tar").write_bytes(tar_bytes([(name, images[name])]))
    uri = str(tmp_path / "s.tar")
    labels = write_labels(tmp_path / "out", [[labels_of(f"{uri}#{name}", uri, images[name], 1)]])
    with pytest.raises(UsageError, match="only the run's manifest/ says where"):
        run(ExportConfig(labels, str(tmp_path / "x"), format="yolo"))
