"""Replaced objects in the manifest: every image of the lake as it is now, once, in whatever kind of object it lies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from support.lakes import parquet_of, tar_bytes

from jobs import lake, storage
from jobs.label.fence import NoFence
from jobs.label.manifest import ids, indexing
from jobs.label.manifest import parts as manifest
from jobs.label.manifest.indexing import Indexing, add_generation, source_table
from jobs.label.manifest.listing import compare
from jobs.label.manifest.mending import mend
from jobs.label.manifest.parts import Generation, Part, Sizes, read_generations
from jobs.label.manifest.relabel import replace_changed
from jobs.lake import ParquetColumns, Source
from jobs.table import parquet as tables
from jobs.table.output import Output

SIZES = Sizes(images_per_part=3, images_per_unit=2)
COLUMNS = ParquetColumns()


class Lake:
    """A lake on disk and its manifest, indexed in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lake"
        self.folder.mkdir()
        self.output = Output.at(str(folder / "out"))

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def put_tar(self, name: str, members: list[str]) -> None:
        self.put(name, tar_bytes([(member, member.encode()) for member in members]))

    def put_parquet(self, name: str, keys: list[str]) -> None:
        self.put(name, parquet_of(pa.table({"id": keys, "image": [key.encode() for key in keys]})))

    def sources(self) -> list[Source]:
        sources = lake.expand_inputs([str(self.folder)])
        for source in sources:
            if source.kind != "image":
                # what a task of the cluster does, so that these tests need none
                indexing._index_shard(source, indexing.index_uri(self.output, source), COLUMNS)
        return sources

    def index(self, sizes: Sizes = SIZES, limit: int | None = None) -> None:
        generations = read_generations(self.output)
        new = compare(self.sources(), generations).new
        add_generation(self.indexing(sizes, limit), generations, new)

    def indexing(self, sizes: Sizes = SIZES, limit: int | None = None) -> Indexing:
        return Indexing(self.output, sizes, COLUMNS, NoFence(), limit)

    def relabel(self, *, limit: int | None = None) -> None:
        generations = read_generations(self.output)
        changed = compare(self.sources(), generations).changed
        assert changed
        replace_changed(self.indexing(limit=limit), generations, changed)

    def rows(self) -> list[dict]:
        return [
            row
            for part in manifest.all_parts(read_generations(self.output))
            for row in tables.read(self.output.manifest_part(part.number)).to_pylist()
        ]

    def check(self) -> None:
        """The manifest against an index of the lake that was made anew."""
        expected = [row for s in self.sources() for row in lake.index_source(s, COLUMNS).to_pylist()]
        found = [{name: row[name] for name in lake.INDEX.names} for row in self.rows()]
        order = "image_id"
        assert sorted(found, key=lambda row: row[order]) == sorted(expected, key=lambda row: row[order])
        for part in manifest.all_parts(read_generations(self.output)):
            table = tables.read(self.output.manifest_part(part.number))
            units = table["unit"].to_pylist()
            assert sorted(set(units)) == list(part.unit_numbers())
            assert units == sorted(units)
            assert table.num_rows == part.images
            hashes = storage.read_bytes(self.output.part_ids(part.number))
            assert hashes == ids.hash_object(table["image_id"])
        numbers = {part.number for part in manifest.all_parts(read_generations(self.output))}
        assert self.output.indexed_parts() == self.output.hashed_parts() == numbers


@pytest.fixture
def here(tmp_path) -> Lake:
    return Lake(tmp_path)


def test_two_of_six_loose_images_are_replaced(here):
    for number in range(6):
        here.put(f"{number}.jpg", b"old")
    here.index()
    for number in (1, 4):
        here.put(f"{number}.jpg", b"another")
    here.relabel()
    here.check()
    # neighbouring loose images share a unit, replaced or not
    assert max(Counter(row["unit"] for row in here.rows()).values()) == 2


def test_shards_that_grow_shrink_and_lie_in_two_parts(here):
    here.put_tar("a.tar", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    here.put_tar("b.tar", ["1.jpg", "2.jpg"])
    here.put_tar("c.tar", ["1.jpg"])
    here.index()
    here.put_tar("a.tar", ["1.jpg"])
    here.put_tar("b.tar", ["2.jpg", "3.jpg", "4.jpg", "5.jpg"])
    here.relabel()
    here.check()


def test_parquet_files(here):
    here.put_parquet("a.parquet", ["one", "two", "three", "four"])
    here.put_parquet("b.parquet", ["one", "two"])
    here.index()
    here.put_parquet("a.parquet", ["two", "five"])
    here.relabel()
    here.check()


def test_all_kinds_at_once_and_over_two_generations(here):
    for number in range(4):
        here.put(f"{number}.jpg", b"old")
    here.put_tar("m.tar", ["1.jpg", "2.jpg"])
    here.put_parquet("n.parquet", ["one", "two"])
    here.put("z.jpg", b"old")
    here.index()
    here.put("0a.jpg", b"old")
    here.put_tar("o.tar", ["1.jpg", "2.jpg"])
    here.index()
    for name in ("0.jpg", "0a.jpg", "2.jpg", "3.jpg", "z.jpg"):
        here.put(name, b"another")
    here.put_tar("m.tar", ["2.jpg", "3.jpg"])
    here.put_tar("o.tar", ["3.jpg"])
    here.put_parquet("n.parquet", ["two", "three", "four"])
    here.relabel()
    here.check()


def test_a_shard_that_held_no_image_and_one_that_holds_none_now(here):
    here.put_tar("empty.tar", ["readme.txt"])
    here.put_tar("full.tar", ["1.jpg", "2.jpg"])
    here.index()
    here.put_tar("empty.tar", ["1.jpg", "2.jpg"])
    here.put_tar("full.tar", ["readme.txt"])
    here.relabel()
    here.check()
    assert len(here.rows()) == 2


def test_a_number_of_a_part_that_is_gone_is_not_used_again(here):
    here.put_tar("a.tar", ["1.jpg"])
    here.index()
    here.put_tar("a.tar", ["readme.txt"])
    here.relabel()
    here.put_tar("b.tar", ["1.jpg"])
    here.index()
    here.check()
    assert [part.number for part in manifest.all_parts(read_generations(here.output))] == [1]


def test_a_trial_keeps_its_limit(here):
    for number in range(4):
        here.put(f"{number}.jpg", b"old")
    here.index(limit=2)
    here.put("3.jpg", b"another")
    here.relabel(limit=2)
    here.put("4.jpg", b"new")
    here.index(limit=2)
    assert [Path(row["uri"]).name for row in here.rows()] == ["0.jpg", "1.jpg"]


def put_loose(here: Lake) -> None:
    here.put("x.tar#a.jpg", b"loose")


def put_shard(here: Lake) -> None:
    here.put_tar("x.tar", ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(("first", "second"), [(put_loose, put_shard), (put_shard, put_loose)])
def test_one_id_from_two_inputs_is_told_apart(here, first, second):
    """A member of a shard beside a loose file whose name is spelled like the id of that member."""
    first(here)
    here.index()
    before = [row["image_id"] for row in here.rows()]
    second(here)
    here.index()
    found = [row["image_id"] for row in here.rows()]
    assert len(set(found)) == len(found) == 3
    # whoever was there first keeps the id
    assert found[: len(before)] == before
    for part in manifest.all_parts(read_generations(here.output)):
        table = tables.read(here.output.manifest_part(part.number))
        assert storage.read_bytes(here.output.part_ids(part.number)) == ids.hash_object(table["image_id"])


def with_uris_for_ids(rows: pa.Table) -> pa.Table:
    """Rows of loose images as earlier versions indexed them: an id could be that of a member of a shard."""
    return rows.set_column(0, "image_id", rows["uri"])


def test_ids_doubled_within_one_indexing(here, monkeypatch):
    """Also where the hashes do not fit into memory at once, and where the changed id is there already."""
    image_rows = lake.image_rows
    monkeypatch.setattr(lake, "image_rows", lambda sources: with_uris_for_ids(image_rows(sources)))
    monkeypatch.setattr(ids, "HASHES_AT_ONCE", 2)
    here.put_tar("x.tar", ["a.jpg", "b.jpg", "c.jpg", "a.jpg"])
    for name in ("x.tar#a.jpg", "x.tar#c.jpg"):
        here.put(name, b"loose")
    here.index()
    found = [row["image_id"].rpartition("/")[2] for row in here.rows()]
    expected = ["#a.jpg", "#b.jpg", "#c.jpg", "#a.jpg#2", "#a.jpg#2#2", "#c.jpg#2"]
    assert found == [f"x.tar{name}" for name in expected]


def test_different_ids_of_one_hash_are_no_double(here, monkeypatch):
    monkeypatch.setattr(ids, "hash_ids", lambda column: pa.array([7] * len(column), pa.uint64()).to_numpy())
    for number in range(5):
        here.put(f"{number}.jpg", b"x")
    here.index()
    assert len(here.rows()) == 5


def write_as_before(output: Output, generation: Generation, groups: list[pa.Table]) -> None:
    """A generation as earlier versions wrote it: nothing was checked, and the ids have no hash objects."""
    parts: list[Part] = []
    for part, table in manifest.cut_parts(
        iter(groups), first_part=0, images_per_part=100, images_per_unit=2, bytes_per_unit=1 << 20
    ):
        storage.put_atomic(output.manifest_part(part.number), tables.to_bytes(table))
        parts.append(part)
    described = json.dumps([[part.number, part.units, part.images] for part in parts])
    table = generation.sources.replace_schema_metadata({"yolact.parts": described})
    storage.put_atomic(output.generation(generation.number), tables.to_bytes(table))


def test_a_manifest_that_is_wrong_already_is_mended(here):
    """As `--relabel-changed` left it: of two replaced loose images the second stands there once old and once new."""
    for number in range(6):
        here.put(f"{number}.jpg", b"old")
    old = lake.image_rows(here.sources())
    for number in (1, 4):
        here.put(f"{number}.jpg", b"another")
    sources = here.sources()
    new = lake.image_rows(sources)
    rows = pa.concat_tables([old.slice(0, 1), new.take([1, 4]), old.slice(2)])
    write_as_before(here.output, Generation(0, source_table(sources), ()), [rows])
    assert len(here.rows()) == 7
    before = read_generations(here.output)
    assert not before[0].ids_checked
    (after,) = mend(here.output, before, SIZES, NoFence())
    assert after.ids_checked
    here.check()
    # the second time there is nothing to do
    assert mend(here.output, [after], SIZES, NoFence()) == [after]


def test_a_manifest_with_one_id_of_two_inputs_is_mended(here):
    here.put("x.tar#a.jpg", b"loose")
    here.put_tar("x.tar", ["a.jpg", "b.jpg"])
    sources = here.sources()
    indexed = {source.kind: lake.index_source(source, COLUMNS) for source in sources}
    groups = [indexed["tar"], with_uris_for_ids(indexed["image"])]
    write_as_before(here.output, Generation(0, source_table(sources), ()), groups)
    mend(here.output, read_generations(here.output), SIZES, NoFence())
    found = [row["image_id"].rpartition("/")[2] for row in here.rows()]
    assert sorted(found) == ["x.tar#a.jpg", "x.tar#a.jpg#2", "x.tar#b.jpg"]


def test_a_right_manifest_of_an_earlier_version_keeps_its_parts(here):
    for number in range(3):
        here.put(f"{number}.jpg", b"old")
    sources = here.sources()
    write_as_before(here.output, Generation(0, source_table(sources), ()), [lake.image_rows(sources)])
    (before,) = read_generations(here.output)
    (after,) = mend(here.output, [before], SIZES, NoFence())
    assert after.parts == before.parts
    assert after.ids_checked
    here.check()
