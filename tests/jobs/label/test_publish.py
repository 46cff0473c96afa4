from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.label.manifest.parts import Part
from jobs.label.pipeline.publish import Counts, publish_part, read_counts
from jobs.runtime.errors import JobError
from jobs.table import parquet as tables
from jobs.table.output import Output
from jobs.table.schema import LABELS

PART = Part(0, 3, 6)
IDS = [f"image-{i}" for i in range(6)]


def staged(ids: list[str]) -> bytes:
    rows = [
        {"image_id": i, "uri": i, "status": "ok", "error": None, "height": 1, "width": 1, "instances": []} for i in ids
    ]
    return tables.to_bytes(pa.Table.from_pylist(rows, schema=LABELS))


@pytest.fixture
def output(tmp_path) -> Output:
    output = Output(str(tmp_path))
    storage.put_atomic(output.manifest_part(0), tables.to_bytes(pa.table({"image_id": IDS})))
    for unit in PART.unit_numbers():
        storage.put_atomic(output.staged_unit(unit), staged(IDS[2 * unit : 2 * unit + 2]))
    return output


def test_a_part_is_its_units_in_order_and_they_are_gone(output):
    assert publish_part(output, PART, {}) == Counts(6, 0, {"ok": 6}) == read_counts(output, 0)
    assert pq.read_table(output.labels_part(0))["image_id"].to_pylist() == IDS
    assert output.staged_units() == set()


@pytest.mark.parametrize("removed", [0, 2, 3])
def test_it_can_be_repeated_wherever_it_was_cut_off(output, monkeypatch, removed):
    delete = storage.delete_objects

    def cut_off(uris):
        delete(uris[:removed])
        raise InterruptedError

    monkeypatch.setattr(storage, "delete_objects", cut_off)
    with pytest.raises(InterruptedError):
        publish_part(output, PART, {})
    monkeypatch.undo()
    before = pq.read_table(output.labels_part(0))
    assert publish_part(output, PART, {}) == Counts(6, 0, {"ok": 6})
    assert pq.read_table(output.labels_part(0)).equals(before, check_metadata=True)
    assert output.staged_units() == set()


def test_ids_that_are_not_the_manifests_are_not_published(output):
    storage.put_atomic(output.staged_unit(1), staged([IDS[2], IDS[2]]))
    with pytest.raises(JobError, match="not the manifest's"):
        publish_part(output, PART, {})
    assert output.published_parts() == set()
    assert output.staged_units() == {0, 1, 2}
