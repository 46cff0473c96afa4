"""The data of a training run: which files the annotations mean, and what is wrong with them, before anything starts."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from support.models import tiny_training_config
from support.odd_annotations import BROKEN, HEIGHT, MENDED, ODD_ID, REFUSED, WIDTH, Oddity, good_content, mask_rle

from jobs.runtime.errors import UsageError
from jobs.train.command import _with_absolute_paths
from jobs.train.data import list_files, open_image_set
from jobs.train.options import TrainConfig
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import TrainingDataset
from yolact.training.packed import PackedImages
from yolact.training.targets import TargetMaker

ORIENTATION = 0x0112


def by_name(oddities):
    return pytest.mark.parametrize("oddity", oddities, ids=lambda oddity: oddity.name)


def encoded(height=HEIGHT, width=WIDTH, kind="JPEG", orientation=1, **options):
    """An image of noise as a file."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"exif": exif} if orientation > 1 else {}), **options)
    return stream.getvalue()


@pytest.fixture
def dataset(tmp_path):
    """A folder with a.png and b.png beside annotations; opens it as a training set after some changes."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        (images / name).write_bytes(encoded(kind="PNG"))

    def open_it(oddity=None, annotations="truth.json", files=None, **options):
        oddity = oddity or Oddity("good", lambda _: None)
        (tmp_path / annotations).write_bytes(oddity.text())
        for name, data in (files or {}).items():
            (images / name).parent.mkdir(exist_ok=True)
            (images / name).write_bytes(data)
        return open_image_set(str(tmp_path / annotations), str(images), "training set", **options)

    open_it.images = images
    return open_it


def load_all(images):
    """The ground truth of every image, which is decoded too."""
    packed = PackedImages(images.data)
    make_targets = TargetMaker.of(tiny_training_config())
    whole = TrainingDataset(packed, images.read_bytes, build_augmentation("none", 64), make_targets)
    return [(whole[0, position], packed.truth(position))[1] for position in range(len(packed))]


@pytest.mark.compute
@by_name([oddity for oddity in MENDED if "LVIS" not in oddity.name])
def test_an_odd_file_is_learnt_from_like_the_good_one(dataset, oddity):
    truths = load_all(dataset(oddity))
    assert [truth.whole_masks().sum() for truth in truths] == [288, 144]
    assert not any(truth.is_crowd.any() for truth in truths)


@pytest.mark.compute
@by_name(BROKEN)
def test_broken_annotations_are_told_before_training_or_left_out(dataset, oddity, capsys):
    with pytest.raises(UsageError, match=rf"training set has 1 broken .*: annotation {ODD_ID} of image "):
        dataset(oddity)
    left = dataset(oddity, skip_broken=True)
    assert [truth.whole_masks().sum() for truth in load_all(left)] == [288, 0]
    assert f"training set: annotation {ODD_ID} of image" in capsys.readouterr().err


@pytest.mark.compute
@by_name(REFUSED)
def test_other_files_are_refused_in_one_line(dataset, oddity):
    with pytest.raises(UsageError, match=oddity.refused):
        dataset(oddity)


def _names(first, second="b.png"):
    def change(content):
        content["images"][0]["file_name"], content["images"][1]["file_name"] = first, second

    return Oddity(first, change)


@pytest.mark.parametrize(
    "name",
    [
        "./a.png",
        "/home/ana/set/a.png",
        "https://host/a.png?x=1",
        "set\\a.png",
        "C:\\set\\a.png",
        "images/a.png",
        "s3://b/a.png",
    ],
)
def test_names_of_other_disks_find_their_files_as_in_evaluate(dataset, name):
    images = dataset(_names(name))
    assert {image.file_name: image.image_id for image in images.data.images} == {"a.png": 1, "b.png": 2}
    load_all(images)


def test_files_in_folders_are_found_by_name_if_only_one_can_be_meant(dataset):
    (dataset.images / "a.png").unlink()
    images = dataset(files={"train/a.png": encoded(kind="PNG")})
    assert {image.file_name for image in images.data.images} == {"train/a.png", "b.png"}
    with pytest.raises(UsageError, match=r"image 1 file 'a\.png' is not there"):
        dataset(files={"val/a.png": encoded(kind="PNG")})


def test_two_names_of_one_file_are_told(dataset):
    with pytest.raises(UsageError, match=r"image [12] has the file name 'a\.png', which an earlier image has too"):
        dataset(_names("a.png", "./a.png"))


@pytest.mark.parametrize("name", ["ann.JSON", "annotations", "instances.coco"])
def test_annotations_are_a_file_whatever_its_name(dataset, name):
    assert len(dataset(annotations=name).data.images) == 2


def test_a_folder_without_files_is_one_line(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.json").write_text(json.dumps(good_content()))
    with pytest.raises(UsageError, match="there are no files in the image folder"):
        open_image_set(str(tmp_path / "t.json"), str(tmp_path / "empty"), "training set")


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [*((kind, turn) for kind in ("JPEG", "PNG", "WEBP", "TIFF") for turn in (1, 3, 6)), ("GIF", 1), ("BMP", 1)],
)
def test_image_files_that_fit_pass(dataset, kind, orientation, capsys):
    height, width = (WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)
    images = dataset(files={"a.png": encoded(height, width, kind, orientation)})
    load_all(images)
    told = capsys.readouterr().err
    assert ("1 images are turned or mirrored by EXIF" in told) == (orientation > 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_image_annotated_as_it_is_stored_is_told_by_its_exif(dataset, kind):
    turned = {"a.png": encoded(HEIGHT, WIDTH, kind, orientation=6)}
    with pytest.raises(UsageError, match=r"image 1 has a file 'a\.png' of 60×80 px.* its EXIF orientation 6 is"):
        dataset(files=turned)
    assert [image.image_id for image in dataset(files=turned, skip_broken=True).data.images] == [2]


@pytest.mark.compute
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (600, 500)])
def test_a_file_cut_short_is_told(dataset, kind, size):
    def change(content):
        for part, values in zip(content["images"], [size, (HEIGHT, WIDTH)], strict=True):
            part["height"], part["width"] = values
        content["annotations"][1]["segmentation"] = mask_rle(height=size[0], width=size[1])

    whole = encoded(*size, kind)
    dataset(Oddity("size", change), files={"a.png": whole})
    for missing in (len(whole) // 3, 40):
        cut = {"a.png": whole[:-missing]}
        with pytest.raises(UsageError, match=r"image 1 has a file 'a\.png' that cannot be used: "):
            dataset(Oddity("size", change), files=cut)
        assert len(dataset(Oddity("size", change), files=cut, skip_broken=True).data.images) == 1


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", b"<html>not found</html>"])
def test_a_file_that_is_no_image_is_told(dataset, data):
    with pytest.raises(UsageError, match=r"image 1 has a file 'a\.png' that cannot be used: "):
        dataset(files={"a.png": data})


def test_a_file_of_another_size_is_told(dataset):
    with pytest.raises(UsageError, match=r"'a\.png' of 81×60 px, but is annotated as 80×60$|; correct"):
        dataset(files={"a.png": encoded(HEIGHT, WIDTH + 1)})


def test_a_header_behind_a_long_profile_is_found(dataset):
    profile = encoded(300, 300, icc_profile=bytes(200_000))
    with pytest.raises(UsageError, match="300×300 px, but is annotated as 80×60"):
        dataset(files={"a.png": profile})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [entry.update(iscrowd=1) for entry in c["annotations"]] and None, "3 crowd regions .* CVAT"),
        (lambda c: c.update(annotations=[]), "2 images without any object"),
        (lambda c: c.update(annotations=[], images=[]), "has no images"),
    ],
)
def test_data_without_an_object_to_learn_is_refused(dataset, change, message):
    with pytest.raises(UsageError, match=message):
        dataset(Oddity("nothing", change))


def test_images_in_an_object_store_are_checked_too(dataset, s3, tmp_path):
    lake = s3.prefix("image-checks")
    filesystem = s3.filesystem()
    cut = encoded(1200, 1000, quality=95)
    assert len(cut) > 200_000
    (dataset.images / "b.png").write_bytes(cut[:-1000])
    filesystem.put(str(dataset.images), f"{lake}/images", recursive=True)
    filesystem.pipe(f"{lake}/truth.json", json.dumps(good_content()).encode())
    with pytest.raises(UsageError, match=r"image 2 has a file 'b\.png' that cannot be used: truncated"):
        open_image_set(f"{lake}/truth.json", f"{lake}/images", "training set")
    left = open_image_set(f"{lake}/truth.json", f"{lake}/images", "training set", skip_broken=True)
    assert [image.image_id for image in left.data.images] == [1]
    load_all(left)


def test_a_local_path_behind_a_scheme_is_a_local_path(tmp_path, monkeypatch):
    """file:// means this machine's disk everywhere: for the images, and for all that workers are told."""

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    assert list(list_files(f"file://{tmp_path}/images")) == ["a.png"]
    monkeypatch.chdir(tmp_path)
    config = _with_absolute_paths(TrainConfig(f"file://{tmp_path}/truth.json", "run", images="s3://lake/images"))
    assert (config.annotations, config.output) == (f"{tmp_path}/truth.json", f"{tmp_path}/run")
    assert config.images == "s3://lake/images"
