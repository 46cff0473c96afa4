"""A unit on its way through the pipeline: packing images, and the rows of its labels."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.label.pipeline.unit import UnitImage, UnitRecord, label_rows, pack_unit, unpack_images, unpack_record
from jobs.table.schema import LABELS
from yolact.images.prepare import PreparedImage
from yolact.inference.detections import Detections


def prepared(height: int, width: int) -> PreparedImage:
    pixels = np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)
    return PreparedImage(pixels, 10 * height, 10 * width)


def images() -> list[UnitImage]:
    return [
        UnitImage("a", "s3://lake/a", "ok", None, prepared(3, 5)),
        UnitImage("b\n../é", "s3://lake/b", "undecodable", "not an image", None),
        UnitImage("c", "s3://lake/c", "ok", None, prepared(1, 1)),
    ]


def test_a_unit_comes_back_as_it_was_packed():
    record = UnitRecord(7, images=3, retries={"throttled": 2}, seconds={"fetch": 0.5})
    packed = pack_unit(record, images())
    assert packed.num_rows == 1
    # as Ray hands it on: sliced out of a larger table
    table = pa.concat_tables([packed, packed, packed]).slice(1, 1)
    assert unpack_record(table) == record
    for image, expected in zip(unpack_images(table), images(), strict=True):
        assert (image.image_id, image.uri, image.status) == (expected.image_id, expected.uri, expected.status)
        assert image.error == expected.error
        assert (image.prepared is None) == (expected.prepared is None)
        if expected.prepared is not None:
            assert (image.prepared.height, image.prepared.width) == (expected.prepared.height, expected.prepared.width)
            np.testing.assert_array_equal(image.prepared.pixels, expected.prepared.pixels)


def test_a_unit_without_images_can_travel():
    record = UnitRecord(7, problem="the store did not answer", unreachable=True)
    packed = pack_unit(record, [])
    assert (unpack_record(packed), unpack_images(packed)) == (record, [])


def detections(count: int, mask_scores: bool) -> Detections:
    return Detections(
        boxes=np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        mask_scores=np.full(count, 0.25, np.float32) if mask_scores else None,
        labels=np.arange(count) % 2,
        areas=np.arange(count),
        masks=[{"size": [30, 50], "counts": b"abc"}] * count,
        height=30,
        width=50,
    )


def test_rows_have_the_schema_whatever_they_hold():
    for found in (
        [detections(2, True), None, detections(0, True)],
        [detections(0, False), None, detections(0, False)],
        [detections(1, False), None, detections(3, True)],
    ):
        rows = label_rows(images(), found, ["cat", "dog"])
        assert rows.schema.equals(LABELS)
        file = io.BytesIO()
        pq.write_table(rows, file)
        assert pq.read_table(file).schema.equals(LABELS)
        got = rows.to_pylist()
        assert [len(row["instances"]) for row in got] == [len(found[0]), 0, len(found[2])]
        assert (got[1]["height"], got[1]["error"]) == (None, "not an image")
        for row, expected in zip(got, found, strict=True):
            for i, instance in enumerate(row["instances"]):
                assert instance["category"] == ["cat", "dog"][i % 2]
                assert instance["bbox"] == [4 * i, 4 * i + 1, 2, 2]
                assert instance["mask_score"] == (None if expected.mask_scores is None else 0.25)


def test_a_unit_of_failures_alone_has_the_schema():
    rows = label_rows([images()[1]], [None], ["cat"])
    assert rows.schema.equals(LABELS)
    assert rows["instances"].to_pylist() == [[]]
