"""Runs a function over the pieces of a label table: a table of one piece in this process, others on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from jobs.table.read import Piece

Result = TypeVar("Result")

#: gives results for a piece, which it gets with the piece's number
Work = Callable[[int, Piece], Iterator[Result]]


def over_pieces_here(work: Work[Result], pieces: Sequence[Piece]) -> Iterator[Result]:
    """Results of `work` for all pieces, in order, in this process."""
    for number, piece in enumerate(pieces):
        yield from work(number, piece)


@dataclass(frozen=True)
class PieceRunner:
    """Runs functions over all pieces of one table."""

    pieces: Sequence[Piece]
    _over: Callable[[Work[Any], Sequence[Piece]], Iterator[Any]] = over_pieces_here

    def over(self, work: Work[Result]) -> Iterator[Result]:
        """Results of `work(number, piece)` for all pieces, in table order.

        On Ray, as many pieces run at once as the cluster has CPUs. A piece pauses while its results are not taken. A
        piece whose worker died runs again, so `work` must give the same results in the same order.
        """
        return self._over(work, self.pieces)


@contextmanager
def piece_runner(pieces: Sequence[Piece], address: str) -> Iterator[PieceRunner]:
    """A runner for these pieces. Within the context it is connected to Ray, unless there is one piece or none."""
    if len(pieces) <= 1:
        yield PieceRunner(pieces)
        return
    # imports Ray, which takes longer than to read one piece
    from jobs.table.ray_pieces import connected

    with connected(address) as over_pieces_on_ray:
        yield PieceRunner(pieces, over_pieces_on_ray)
