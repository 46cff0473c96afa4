"""Parts and units of a lake: how it is cut, and how it grows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.label.manifest import parts as manifest
from jobs.table.output import UNITS_PER_PART


def group(name: str, lengths: list[int]) -> pa.Table:
    n = len(lengths)
    return pa.table(
        {
            "image_id": [f"{name}#{i}" for i in range(n)],
            "uri": [name] * n,
            "offset": pa.array(range(n), pa.int64()),
            "length": pa.array(lengths, pa.int64()),
            "size": pa.array([0] * n, pa.int64()),
            "etag": [""] * n,
            "problem": pa.nulls(n, pa.string()),
        },
        schema=pa.schema([field for field in manifest.MANIFEST if field.name not in ("unit", "part")]),
    )


def test_unit_starts_by_count_and_by_bytes():
    assert manifest.unit_starts(np.array([1, 1, 1, 1, 1]), 2, 100).tolist() == [0, 2, 4]
    assert manifest.unit_starts(np.array([60, 60, 60]), 64, 100).tolist() == [0, 2]
    assert manifest.unit_starts(np.array([-1, -1, -1]), 2, 100).tolist() == [0, 2]
    assert manifest.unit_starts(np.array([], np.int64), 2, 100).tolist() == []


@pytest.mark.compute
@settings(deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(-1, 300), max_size=30), max_size=8),
    images_per_part=st.integers(1, 20),
    images_per_unit=st.integers(1, 7),
    first_part=st.integers(0, 3),
)
def test_parts_hold_every_row_once_in_order(groups, images_per_part, images_per_unit, first_part):
    tables = [group(f"g{i}", lengths) for i, lengths in enumerate(groups)]
    cut = list(
        manifest.cut_parts(
            iter(tables),
            first_part=first_part,
            images_per_part=images_per_part,
            images_per_unit=images_per_unit,
            bytes_per_unit=500,
        )
    )
    expected = [image_id for table in tables for image_id in table["image_id"].to_pylist()]
    assert [image_id for _, table in cut for image_id in table["image_id"].to_pylist()] == expected
    for position, (part, table) in enumerate(cut):
        assert part.number == first_part + position
        assert part.images == table.num_rows > 0
        units = table["unit"].to_pylist()
        assert sorted(set(units)) == list(part.unit_numbers())
        assert units == sorted(units)
        assert set(table["part"].to_pylist()) == {part.number}
        for unit in set(units):
            rows = manifest.rows_of_unit(table, unit).to_pylist()
            assert 1 <= len(rows) <= images_per_unit
            assert len({row["uri"] for row in rows}) == 1
        # only the last unit of a part may take it past the limit, and only the last part may be short
        assert part.images < images_per_part + images_per_unit
        assert position == len(cut) - 1 or part.images >= images_per_part


def test_unit_numbers_are_those_of_the_part():
    part = manifest.Part(number=3, units=2, images=70)
    assert list(part.unit_numbers()) == [3 * UNITS_PER_PART, 3 * UNITS_PER_PART + 1]


@pytest.mark.parametrize("images", [0, 1])
def test_empty_groups_make_no_part(images):
    cut = manifest.cut_parts(
        iter([group("a", []), group("b", [5] * images)]),
        first_part=0,
        images_per_part=10,
        images_per_unit=4,
        bytes_per_unit=100,
    )
    assert [part for part, _ in cut] == [manifest.Part(0, 1, 1)][:images]
