"""`yolact label --tile` with real Ray: large images are labelled in tiles, and one run has one way to cut them."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.lakes import write_files
from support.models import save_tiny_checkpoint

from jobs.label import run
from jobs.label.options import LabelConfig
from jobs.runtime.errors import UsageError
from yolact import Predictor, TileConfig, load_checkpoint
from yolact.images.decode import decode_image

pytestmark = pytest.mark.usefixtures("local_ray")

#: (height, width): some are larger than a tile of 96 px, others are not
SIZES = [(96, 96), (150, 250), (60, 40), (97, 96), (300, 90), (200, 200)]


def draw(height: int, width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_rows_are_those_of_the_predictor_with_tiles(tmp_path):
    checkpoint = str(save_tiny_checkpoint(tmp_path))
    images = {f"{number}.png": draw(*size, number) for number, size in enumerate(SIZES)}
    write_files(str(tmp_path / "lake"), images)
    config = LabelConfig(
        (str(tmp_path / "lake"),),
        str(tmp_path / "out"),
        weights=checkpoint,
        precision="float32",
        score_threshold=0.2,
        tile=96,
        tile_overlap=0.25,
        tiled_max_detections=150,
        images_per_unit=2,
    )
    assert run(config) == 0
    table = pa.concat_tables(map(pq.read_table, sorted((tmp_path / "out" / "labels").glob("*.parquet"))))
    rows = {row["image_id"].rsplit("/", 1)[-1]: row for row in table.to_pylist()}
    assert rows.keys() == images.keys()
    tile = TileConfig(96, 0.25, max_detections=150)
    predictor = Predictor(load_checkpoint(checkpoint), score_threshold=0.2, tile=tile)
    for name, data in images.items():
        (found,) = predictor([decode_image(data)])
        instances = rows[name]["instances"]
        assert (rows[name]["height"], rows[name]["width"]) == (found.height, found.width)
        assert [instance["mask"] for instance in instances] == [mask["counts"] for mask in found.masks]
        np.testing.assert_allclose([instance["score"] for instance in instances], found.scores, atol=1e-5)
    # one run of the network gives no more than 100
    assert max(len(row["instances"]) for row in rows.values()) == 150

    with pytest.raises(UsageError, match="belongs to another run"):
        run(dataclasses.replace(config, tile=None, tile_overlap=0.2, tiled_max_detections=None))
