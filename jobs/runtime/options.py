"""How many actors or workers: `N` or `MIN:MAX` on the command line."""

from __future__ import annotations

from jobs.runtime.errors import UsageError


def parse_count_range(flag: str, text: str) -> tuple[int, int]:
    """`N` or `MIN:MAX`, given for a flag, to (min, max), both at least 1. Raises `UsageError`, naming the flag."""
    pieces = text.split(":")
    if len(pieces) > 2 or not all(piece.isdigit() and int(piece) > 0 for piece in pieces):
        raise UsageError(f"{flag} {text}: give a number such as 2, or a range such as 2:8")
    low, high = int(pieces[0]), int(pieces[-1])
    if high < low:
        raise UsageError(f"{flag} {text}: the range must go from low to high")
    return low, high
