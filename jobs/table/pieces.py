"""Runs a function over the pieces of a label table: on Ray, with results in order and bounded memory.

A table of one piece is read in this process, without Ray.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from jobs.runtime.errors import JobError
from jobs.runtime.logs import in_worker
from jobs.table.read import Piece

Result = TypeVar("Result")

log = logging.getLogger(__name__)

#: results of one piece that may wait until they are taken
_WAITING_RESULTS = 4
#: attempts at a piece whose worker died
_TRIES = 4


@dataclass(frozen=True)
class PieceRunner:
    """Runs functions over all pieces of one table."""

    pieces: Sequence[Piece]
    on_ray: bool

    def over(self, work: Callable[[int, Piece], Iterator[Result]]) -> Iterator[Result]:
        """Results of `work(number, piece)` for all pieces, in table order.

        On Ray, as many pieces run at once as the cluster has CPUs. A piece pauses while its results are not taken. A
        piece whose worker died runs again, so `work` must give the same results in the same order.
        """
        if self.on_ray:
            yield from _on_ray(work, self.pieces)
        else:
            for number, piece in enumerate(self.pieces):
                yield from work(number, piece)


@contextmanager
def piece_runner(pieces: Sequence[Piece], address: str) -> Iterator[PieceRunner]:
    """A runner for these pieces. Within the context it is connected to Ray, unless there is one piece or none."""
    if len(pieces) <= 1:
        yield PieceRunner(pieces, on_ray=False)
        return
    from jobs.runtime.ray_session import ray_session  # imports Ray, which one piece does not need

    with ray_session(address):
        yield PieceRunner(pieces, on_ray=True)


def _on_ray(work: Callable[[int, Piece], Iterator[Result]], pieces: Sequence[Piece]) -> Iterator[Result]:
    import ray  # a table of one piece is read without it

    as_task = ray.remote(
        num_cpus=1,
        max_retries=_TRIES - 1,
        num_returns="streaming",
        _generator_backpressure_num_objects=_WAITING_RESULTS,
    )
    run_piece = as_task(in_worker(_run_piece))
    shared_work = ray.put(work)
    todo = enumerate(pieces)
    at_once = int(ray.cluster_resources().get("CPU", 1)) + 1
    running = deque(run_piece.remote(shared_work, *item) for item in islice(todo, at_once))
    try:
        while running:
            for reference in running[0]:
                yield ray.get(reference)
            running.popleft()
            running.extend(run_piece.remote(shared_work, *item) for item in islice(todo, 1))
    except ray.exceptions.RayTaskError as error:
        # the worker's own error, without the traceback that Ray puts around it
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise JobError(f"a worker died {_TRIES} times at the same piece: {str(error).splitlines()[0]}") from error
    finally:
        for generator in running:
            ray.cancel(generator)


def _run_piece(work: Callable[[int, Piece], Iterator[Any]], number: int, piece: Piece) -> Iterator[Any]:
    start = time.perf_counter()
    yield from work(number, piece)
    seconds = round(time.perf_counter() - start, 3)
    fields = {"piece": number, "rows": piece.rows, "file": piece.uri, "seconds": seconds}
    log.info("piece %d: %d rows", number, piece.rows, extra={"fields": fields})
