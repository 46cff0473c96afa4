"""Photos from tar shards in S3 into Parquet in S3, against `Predictor` on the same photos."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from support.lakes import write_shards
from support.models import official_stand_in
from support.parity_cases import own_case
from support.shared_data import shared_path

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.table.schema import LABELS
from yolact import Predictor, build_yolact, load_weights
from yolact.images.decode import decode_image

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return official_stand_in("yolact_resnet50", tmp_path_factory.mktemp("weights"))


def label(s3, checkpoint: Path, photos: dict[str, bytes], shards: int, **options) -> pa.Table:
    base = s3.prefix("coco")
    write_shards(f"{base}/lake", photos, shards)
    inputs = (f"{base}/lake/shard-{{000..{shards - 1:03d}}}.tar",)
    assert (
        run(
            LabelConfig(
                inputs, f"{base}/out", config="yolact_resnet50", weights=str(checkpoint), precision="float32", **options
            )
        )
        == 0
    )
    filesystem = s3.filesystem()
    assert filesystem.exists(f"{base}/out/_SUCCESS")
    parts = filesystem.glob(f"{base.removeprefix('s3://')}/out/labels/part-*.parquet")
    return pa.concat_tables([pq.read_table(filesystem.open(part)) for part in sorted(parts)])


def check_rows(table: pa.Table, photos: dict[str, bytes]) -> None:
    """What any reader may rely on: schema, ids, and masks that agree with area, box and size."""
    assert table.schema.equals(LABELS)
    rows = table.to_pylist()
    assert sorted(row["image_id"].split("#")[1] for row in rows) == sorted(photos)
    for row in rows:
        assert row["status"] == "ok"
        for instance in row["instances"]:
            mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": instance["mask"]})
            assert instance["area"] == int(mask.sum())
            x, y, width, height = instance["bbox"]
            assert 0 <= x <= x + width <= row["width"] + 1e-3
            assert 0 <= y <= y + height <= row["height"] + 1e-3
            # masks are cropped one prototype pixel outside the box and then smoothed by the upsampling
            slack_y, slack_x = 2.5 * row["height"] / 138, 2.5 * row["width"] / 138
            ys, xs = np.nonzero(mask)
            if len(ys):
                assert y - slack_y <= ys.min()
                assert ys.max() <= y + height + slack_y
                assert x - slack_x <= xs.min()
                assert xs.max() <= x + width + slack_x


def views_of_the_photo() -> dict[str, bytes]:
    """Six JPEGs of several sizes: the parity photo whole, mirrored, turned, enlarged, and two parts of it."""
    photo = Image.fromarray(own_case("yolact_resnet50").photo)
    width, height = photo.size
    views = [photo, ImageOps.mirror(photo), photo.transpose(Image.Transpose.ROTATE_90), photo.resize((640, 560))]
    views += [photo.crop((20 * i, 15 * i, width - 10 * i, height - 20 * i)) for i in (2, 6)]
    found = {}
    for number, view in enumerate(views):
        file = io.BytesIO()
        view.save(file, "JPEG", quality=90)
        found[f"photo-{number}.jpg"] = file.getvalue()
    return found


@pytest.fixture
def threads_of_an_actor():
    """As many CPU threads here as in the model actor: their number changes the last bits of a convolution."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # the Ray of the tests has 2 CPUs
    yield
    torch.set_num_threads(before)


def test_every_row_equals_the_predictor(s3, checkpoint, threads_of_an_actor):
    photos = views_of_the_photo()
    table = label(s3, checkpoint, photos, shards=2)
    check_rows(table, photos)
    model = build_yolact("yolact_resnet50")
    load_weights(model, checkpoint)
    predictor = Predictor(model)
    for row in table.to_pylist():
        data = photos[row["image_id"].split("#")[1]]
        (expected,) = predictor([decode_image(data, max_pixels=10**8, max_bytes=10**8)])
        assert [i["score"] for i in row["instances"]] == expected.scores.tolist()
        assert [i["label"] for i in row["instances"]] == expected.labels.tolist()
        assert [i["area"] for i in row["instances"]] == expected.areas.tolist()
        assert [i["mask"] for i in row["instances"]] == [rle["counts"] for rle in expected.masks]
        xywh = np.concatenate([expected.boxes[:, :2], expected.boxes[:, 2:] - expected.boxes[:, :2]], axis=1)
        assert [i["bbox"] for i in row["instances"]] == xywh.tolist()


@pytest.mark.slow
def test_all_105_photos_as_8_shards(s3, checkpoint):
    folder = shared_path("data") / "coco" / "val"
    photos = {path.name: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}
    assert len(photos) == 105
    one = label(s3, checkpoint, photos, shards=8)
    check_rows(one, photos)
    two = label(s3, checkpoint, photos, shards=8, num_actors="2")
    assert two.drop_columns(["image_id", "uri"]).equals(one.drop_columns(["image_id", "uri"]))
