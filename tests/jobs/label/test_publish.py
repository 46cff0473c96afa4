"""A part is published once, from its staged units, with its books and hashes of ids."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.label.fence import NoFence
from jobs.label.manifest.parts import SOURCES, Generation, Part, put_generation
from jobs.label.pipeline.publish import Counts, publish_part, read_books
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
    assert publish_part(output, PART, {}, NoFence()) == Counts(6, 0, {"ok": 6}) == read_books(output, 0).counts
    assert pq.read_table(output.labels_part(0))["image_id"].to_pylist() == IDS
    assert output.staged_units() == set()


@pytest.mark.parametrize("removed", [0, 2, 3])
def test_it_can_be_repeated_wherever_it_was_cut_off(output, monkeypatch, removed):
    delete = storage.delete_objects

    def cut_off(uris, retry):
        delete(uris[:removed], retry=retry)
        raise InterruptedError

    monkeypatch.setattr(storage, "delete_objects", cut_off)
    with pytest.raises(InterruptedError):
        publish_part(output, PART, {}, NoFence())
    monkeypatch.undo()
    before = pq.read_table(output.labels_part(0))
    assert publish_part(output, PART, {}, NoFence()) == Counts(6, 0, {"ok": 6})
    assert pq.read_table(output.labels_part(0)).equals(before, check_metadata=True)
    assert output.staged_units() == set()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_part_that_was_replaced_during_its_upload_is_removed_again(output, wanted):
    """Another driver took over meanwhile. What the manifest still names may stay: every driver writes the same."""

    class LostAfterUpload(NoFence):
        uploaded = False

        def check(self) -> None:
            if self.uploaded:
                raise JobError("another driver took over")

        def upload(self, path, uri):
            super().upload(path, uri)
            self.uploaded = True

    parts = (PART,) if wanted else (Part(1, 3, 6),)
    put_generation(output, Generation(0, SOURCES.empty_table(), parts), NoFence())
    with pytest.raises(JobError, match="took over"):
        publish_part(output, PART, {}, LostAfterUpload())
    assert storage.exists(output.labels_part(0)) is wanted
    assert output.staged_units() == set(PART.unit_numbers())


def test_ids_that_are_not_the_manifests_are_not_published(output):
    storage.put_atomic(output.staged_unit(1), staged([IDS[2], IDS[2]]))
    with pytest.raises(JobError, match="not the manifest's"):
        publish_part(output, PART, {}, NoFence())
    assert output.published_parts() == set()
    assert output.staged_units() == {0, 1, 2}
