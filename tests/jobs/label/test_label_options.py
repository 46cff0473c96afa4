"""Options of `yolact label` that no run can have."""

from __future__ import annotations

import pytest

from jobs.label.options import LabelConfig, check_options, tile_config
from jobs.runtime.errors import UsageError
from yolact import TileConfig


@pytest.mark.parametrize("output", ["hf://datasets/me/labels", "HF://datasets/me/labels"])
def test_a_hugging_face_repository_is_no_output(output):
    with pytest.raises(UsageError, match="each object would be a commit") as caught:
        check_options(LabelConfig(("hf://datasets/me/photos",), output))
    assert "\n" not in str(caught.value)
    check_options(LabelConfig(("hf://datasets/me/photos",), "s3://bucket/labels"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 31}, "--tile 31: must be at least 32"),
        ({"tile": 768, "tile_overlap": 0.6}, "--tile-overlap 0.6: must lie between 0 and 0.5"),
        ({"tile": 768, "tile_overlap": float("nan")}, "--tile-overlap nan: must lie between 0 and 0.5"),
        ({"tile": 768, "tiled_max_detections": 0}, "--tiled-max-detections 0: must be at least 1"),
        ({"tile_overlap": 0.3}, "the options of tiles need --tile"),
        ({"tile_whole_image": False}, "the options of tiles need --tile"),
        ({"tiled_max_detections": 1000}, "the options of tiles need --tile"),
    ],
)
def test_tiles_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        check_options(LabelConfig(("lake",), "out", **options))


def test_the_options_of_tiles_become_a_tile_config():
    config = LabelConfig(("lake",), "out", tile=768, tile_overlap=0.3, tile_whole_image=False, tiled_max_detections=5)
    check_options(config)
    assert tile_config(config) == TileConfig(768, 0.3, whole_image=False, max_detections=5)
    assert tile_config(LabelConfig(("lake",), "out")) is None
