"""Bundles of missing units: each unit is handed out once, in order, and again where its actor died."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from jobs.label.manifest.parts import Part
from jobs.label.pipeline.bundles import Bundle, Bundles, MissingUnits, units_per_bundle
from jobs.table.output import UNITS_PER_PART


def take_all(bundles: Bundles) -> list[tuple[int, ...]]:
    taken = []
    while (bundle := bundles.take()) is not None:
        taken.append(bundle.units)
    return taken


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.sets(st.tuples(st.integers(0, 6), st.integers(0, 50))),
    st.integers(1, 16),
    st.integers(1, 8),
)
def test_every_missing_unit_is_in_one_bundle_and_a_bundle_in_one_part(units, staged, most, at_once):
    parts = [Part(number, count, count) for number, count in enumerate(units)]
    committed = {part * UNITS_PER_PART + index for part, index in staged}
    missing = MissingUnits(parts, committed)
    expected = [unit for part in parts for unit in part.unit_numbers() if unit not in committed]
    assert list(missing) == expected
    assert len(missing) == len(expected)
    bundles = Bundles(missing, most, at_once)
    assert bundles.any_now() == bool(expected)
    taken = take_all(bundles)
    assert [unit for bundle in taken for unit in bundle] == expected
    assert all(len(bundle) <= most for bundle in taken)
    assert all(bundle[0] // UNITS_PER_PART == bundle[-1] // UNITS_PER_PART for bundle in taken)
    assert not bundles.any_now()


def test_a_committed_unit_is_removed_once():
    missing = MissingUnits([Part(3, 4, 4)], [])
    first = 3 * UNITS_PER_PART
    assert missing.remove(first + 1)
    assert not missing.remove(first + 1)
    assert not missing.remove(first + 9)
    assert not missing.remove(0)
    assert list(missing) == [first, first + 2, first + 3]
    assert missing.left_in(3) == 3


def test_bundles_become_smaller_towards_the_end_so_that_all_end_together():
    sizes = [len(units) for units in take_all(Bundles(MissingUnits([Part(0, 1000, 1000)], []), 16, at_once=8))]
    assert sizes[0] == 16
    assert sizes[-16:] == [1] * 16
    assert sizes == sorted(sizes, reverse=True)


def test_units_of_a_dead_actor_come_again_one_by_one_and_not_for_ever():
    bundles = Bundles(MissingUnits([Part(0, 4, 4)], []), 4, at_once=1)
    assert take_all(bundles)[0] == (0, 1)
    for _ in range(2):
        bundles.give_back([1, 2])
        assert sorted(take_all(bundles)) == [(1,), (2,)]
    bundles.give_back([1, 2])
    assert (take_all(bundles), bundles.any_now()) == ([], False)


def test_what_is_committed_before_its_turn_is_not_handed_out():
    missing = MissingUnits([Part(0, 2, 2), Part(1, 2, 2)], [])
    bundles = Bundles(missing, 2, at_once=1)
    assert bundles.take() == Bundle((0, 1))
    missing.remove(UNITS_PER_PART)
    assert take_all(bundles) == [(UNITS_PER_PART + 1,)]


def test_parts_that_are_added_are_handed_out_too():
    missing = MissingUnits([Part(0, 2, 2)], [])
    bundles = Bundles(missing, 2, at_once=1)
    assert take_all(bundles) == [(0,), (1,)]
    missing.add([Part(5, 3, 3)], [5 * UNITS_PER_PART])
    assert take_all(bundles) == [(5 * UNITS_PER_PART + 1,), (5 * UNITS_PER_PART + 2,)]


def test_a_bundle_has_about_a_thousand_images():
    assert units_per_bundle([Part(0, 1024, 65_536)]) == 16
    assert units_per_bundle([Part(0, 3, 6)]) == 512
    assert units_per_bundle([Part(0, 2, 9_000)]) == 1
    assert units_per_bundle([]) == 1


def test_the_missing_units_of_a_billion_images_take_little_memory():
    tracemalloc.start()
    missing = MissingUnits([Part(number, 1024, 65_536) for number in range(1_000)], [])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # 65.5 million images take 1.1 MB
    assert taken < 1.5 * len(missing)
