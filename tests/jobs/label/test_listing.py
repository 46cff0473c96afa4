"""The listing of the lake in Arrow, held against the plain way with a dictionary."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.label.manifest.indexing import source_table
from jobs.label.manifest.listing import compare, listing_digest
from jobs.label.manifest.parts import Generation, source_versions
from jobs.lake import Source, SourceTable

URIS = [f"s3://b/{name}" for name in ("a.jpg", "b.png", "b.tar", "ü☃.jpg", "z/1.parquet", "z")]
SOURCES = st.lists(
    st.builds(
        Source,
        st.sampled_from(URIS),
        st.sampled_from([-1, 0, 7, 1 << 40]),
        st.sampled_from(["", "e1", "e2"]),
        st.sampled_from(["image", "tar", "parquet"]),
    ),
    max_size=8,
    unique_by=lambda source: source.uri,
)


@pytest.mark.compute
@settings(deadline=None)
@given(SOURCES, st.lists(SOURCES, max_size=3))
def test_it_finds_what_a_dictionary_finds(sources, known):
    generations = [Generation(number, source_table(table), ()) for number, table in enumerate(known)]
    versions = source_versions(generations)
    state = compare(sources, generations)
    assert list(state.new) == [source for source in sources if source.uri not in versions]
    assert state.changed == [s for s in sources if s.uri in versions and s.was_replaced(*versions[s.uri])]
    assert compare(SourceTable.of(sources), generations) == state


@pytest.mark.compute
@settings(deadline=None)
@given(SOURCES, SOURCES)
def test_a_table_of_sources_is_read_like_a_list(first, second):
    everything = [*first, *second]
    table = SourceTable.of(iter(everything))
    assert list(table) == everything
    assert table == everything
    assert everything == table
    assert len(table) == len(everything)
    assert table[1:3] == everything[1:3]
    assert table[::-1] == everything[::-1]
    assert [table[place] for place in range(-len(everything), len(everything))] == everything * 2
    with pytest.raises(IndexError):
        table[len(everything)]
    once: dict[str, Source] = {}
    for source in everything:
        once.setdefault(source.uri, source)
    assert table.each_once() == list(once.values())
    plain = hashlib.sha256("".join(f"{s.uri}\0{s.size}\0{s.etag}\n" for s in everything).encode()).hexdigest()
    assert listing_digest(table) == listing_digest(everything) == plain


def test_pieces_of_more_than_one_batch(monkeypatch):
    monkeypatch.setattr("jobs.lake.sources._AT_ONCE", 3)
    sources = [Source(f"s3://b/{number:02}.jpg", number, f"e{number}", "image") for number in range(10)]
    table = SourceTable.of(sources)
    assert (list(table), table.each_once()) == (sources, table)
    assert SourceTable.of([*table, *table]).each_once() == sources
    changed = [sources[4]._replace(etag="other")]
    state = compare([*sources[:4], *changed, *sources[5:]], [Generation(0, source_table(sources[:7]), ())])
    assert (list(state.new), state.changed) == (sources[7:], changed)
