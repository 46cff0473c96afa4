"""Decoding in a child process: an image that kills its decoder becomes a row and takes nothing else along."""

from __future__ import annotations

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from jobs.labelling.stages import InputLimits, decode_and_prepare
from yolact.images import ImageError
from yolact.preprocess import PreparedImage

#: no picture within the limits takes this long; a decoder that hangs is ended
TIMEOUT_SECONDS = 120.0


@functools.cache
def _child() -> ProcessPoolExecutor:
    # spawn: the worker has threads (Ray's, Arrow's), and a forked child would inherit their locks
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))


def decode_in_child(data: bytes, limits: InputLimits, input_size: int) -> PreparedImage:
    """`decode_and_prepare` in a process of its own; its death is an `ImageError` of status "undecodable"."""
    child = _child()
    try:
        return child.submit(decode_and_prepare, data, limits, input_size).result(TIMEOUT_SECONDS)
    except BrokenProcessPool:
        reason = "the image killed its decoder process"
    except TimeoutError:
        for process in list((child._processes or {}).values()):
            process.kill()
        reason = f"decoding took more than {TIMEOUT_SECONDS:.0f} s and was ended"
    child.shutdown(wait=False, cancel_futures=True)
    _child.cache_clear()
    raise ImageError("undecodable", reason)
