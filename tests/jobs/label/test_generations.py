"""How new sources are cut into generations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.label.manifest import indexing
from jobs.label.manifest.indexing import FIRST_IMAGES, cut_sources
from jobs.lake import Source


def shards(sizes: list[int]) -> list[Source]:
    return [Source(f"s3://lake/{number}.tar", size, "e", "tar") for number, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 40_000_000_000), min_size=1, max_size=60), st.integers(0, 1_000_000))
def test_every_source_is_in_one_generation_and_in_order(sizes, known):
    sources = shards(sizes)
    cut = list(cut_sources(sources, known))
    assert [source for chunk in cut for source in chunk] == sources
    assert all(cut)


def test_a_small_lake_is_one_generation():
    assert len(list(cut_sources(shards([1_000_000_000] * 15), 0))) == 1
    assert len(list(cut_sources([Source(f"{n}.jpg", 1, "", "image") for n in range(2 * FIRST_IMAGES - 1)], 0))) == 1


@pytest.mark.compute
@pytest.mark.parametrize(("known", "generations"), [(0, 15), (500_000_000, 2), (10**9, 1)])
def test_a_billion_images_are_few_generations_and_the_first_is_soon_indexed(known, generations):
    sources = shards([1_500_000_000] * 100_000)
    cut = list(cut_sources(sources, known))
    assert len(cut) == generations
    if not known:
        assert [len(chunk) for chunk in cut[:4]] == [7, 7, 14, 28]


def test_what_has_no_known_size_counts_as_one_image(monkeypatch):
    monkeypatch.setattr(indexing, "FIRST_IMAGES", 2)
    sources = [Source(f"{number}.jpg", -1, "", "image") for number in range(8)]
    assert [len(chunk) for chunk in cut_sources(sources, 0)] == [2, 2, 4]
