"""Calls in a child process. If the child dies, the caller gets an error and goes on."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class ChildDiedError(Exception):
    """The child process died during the call, or was ended because the call took too long (`timed_out`)."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__("the process was ended: it took too long" if timed_out else "the process died")
        self.timed_out = timed_out


@functools.cache
def _child() -> ProcessPoolExecutor:
    # spawn: the worker has threads (Ray's, Arrow's), and a forked child would inherit their locks
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))


def call_in_child(
    function: Callable[Parameters, Result],
    timeout: float | None,
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """`function(*args, **kwargs)` in the child process, which is kept for the next call.

    `function` must stand at the top of a module. `timeout` is in seconds. Raises what `function` raises, and
    ChildDiedError.
    """
    child = _child()
    timed_out = False
    try:
        return child.submit(function, *args, **kwargs).result(timeout)
    except BrokenProcessPool:
        pass
    except TimeoutError:
        timed_out = True
        for process in list((child._processes or {}).values()):
            process.kill()
    child.shutdown(wait=False, cancel_futures=True)
    _child.cache_clear()
    raise ChildDiedError(timed_out=timed_out)
