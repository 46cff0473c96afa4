"""Runs a function over the pieces of a label table as Ray tasks, with results in order and bounded memory."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import ray

from jobs.runtime.errors import JobError
from jobs.runtime.logs import in_worker
from jobs.runtime.ray_session import ray_session
from jobs.table.read import Piece

Result = TypeVar("Result")

log = logging.getLogger(__name__)

#: results of one piece that may wait until they are taken
_WAITING_RESULTS = 4
#: attempts at a piece whose worker died
_TRIES = 4


@contextmanager
def connected(address: str) -> Iterator[Callable[..., Iterator[Any]]]:
    """Connected to Ray within the context; gives `over_pieces_on_ray`."""
    with ray_session(address):
        yield over_pieces_on_ray


def over_pieces_on_ray(work: Callable[[int, Piece], Iterator[Result]], pieces: Sequence[Piece]) -> Iterator[Result]:
    """Results of `work(number, piece)` for all pieces, in order. Raises the error of `work`, or `JobError`."""
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
