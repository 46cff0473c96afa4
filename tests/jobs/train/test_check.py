"""`yolact train --check`: what the data holds and what is broken in it, without a training run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from support.odd_annotations import HEIGHT, ODD_ID, WIDTH, good_content

from jobs.runtime.errors import UsageError
from jobs.train import (
    check,  # noqa: F401  imported here, since torch starts a process when it is first loaded
    run,
)
from jobs.train.options import TrainConfig


@pytest.fixture
def check_of(tmp_path, capsys):
    """Check a.png and b.png with annotations; what was printed on stdout and stderr."""
    for name in ("a.png", "b.png"):
        stream = io.BytesIO()
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(stream, "PNG")
        (tmp_path / name).write_bytes(stream.getvalue())

    def run_it(content, validation=None, **options):
        (tmp_path / "truth.json").write_text(json.dumps(content))
        if validation is not None:
            (tmp_path / "val.json").write_text(json.dumps(validation))
            options |= {"val_annotations": str(tmp_path / "val.json"), "val_images": str(tmp_path)}
        config = TrainConfig(annotations=str(tmp_path / "truth.json"), images=str(tmp_path), check=True, **options)
        assert run(config) == 0
        return capsys.readouterr()

    return run_it


def test_objects_crowds_and_images_of_every_class_are_shown(check_of):
    content = good_content()
    content["categories"].append({"id": 9, "name": "dog"})
    content["annotations"].append({**content["annotations"][0], "id": 1, "iscrowd": 1})
    printed = check_of(content).out.splitlines()
    assert printed[0] == "training set: 2 images, 3 objects, 1 crowd regions"
    assert [line.split() for line in printed[1:5]] == [
        ["class", "objects", "crowds", "images"],
        ["person", "2", "1", "2"],
        ["traffic", "light", "1", "0", "1"],
        ["dog", "0", "0", "0"],
    ]
    assert "training set: 1 of 3 classes have no objects: dog" in printed
    assert "3 of 3 boxes fit their masks" in printed


def test_boxes_that_do_not_fit_are_named(check_of):
    content = good_content()
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
    printed = check_of(content).out
    assert f"boxes that do not fit: 3 (annotations 11, 12, {ODD_ID})" in printed
    assert "3 of these fit when read as x1, y1, x2, y2" in printed


def test_what_is_broken_is_told_after_what_is_not(check_of, capsys):
    content = good_content()
    content["annotations"][2]["segmentation"] = []
    with pytest.raises(UsageError, match=f"1 annotations or images are broken, .* annotation {ODD_ID} of image 2"):
        check_of(content)
    assert "training set: 2 images (1 without objects), 2 objects" in capsys.readouterr().out
    check_of(content, skip_broken=True)


def test_the_validation_set_is_checked_with_it(check_of):
    printed = check_of(good_content(), good_content()).out
    assert "validation set: 2 images, 3 objects" in printed
    other = good_content()
    other["categories"][0]["name"] = "dog"
    with pytest.raises(UsageError, match="the validation set has classes dog, traffic light, the training set person"):
        check_of(good_content(), other)


def test_only_a_check_goes_without_an_output():
    with pytest.raises(UsageError, match="--output is needed"):
        run(TrainConfig(annotations="truth.json"))
