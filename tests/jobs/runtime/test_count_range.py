"""Parsing of `N` and `MIN:MAX` on the command line."""

from __future__ import annotations

import pytest

from jobs.runtime.errors import UsageError
from jobs.runtime.options import parse_count_range


@pytest.mark.parametrize(("text", "expected"), [("4", (4, 4)), ("2:8", (2, 8)), ("3:3", (3, 3))])
def test_numbers_and_ranges(text, expected):
    assert parse_count_range("--num-actors", text) == expected


@pytest.mark.parametrize("text", ["0", "a", "4:2", "1:2:3", "-1", "", "0:2", "2:"])
def test_anything_else_names_the_flag(text):
    with pytest.raises(UsageError, match="--num-workers"):
        parse_count_range("--num-workers", text)
