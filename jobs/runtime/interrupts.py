"""Interrupts of the main thread: by SIGTERM, and by a time limit of the start of Ray. Imports no Ray."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.runtime.errors import EXIT_FAILED, JobError

#: seconds that a start of Ray may take
_START_LIMIT_SECONDS = 300.0
#: seconds that a start has to end after it was interrupted, before the process exits
_GRACE_SECONDS = 10.0


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within this context SIGTERM raises `JobError` in the main thread, so that the run ends as after an error.

    So committed work stays, and the lease is given back. In a thread other than the main one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    signalled = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True
        # the only exception that Ray lets through while it waits
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        if signalled:
            raise JobError("stopped by SIGTERM; run the same command again to go on") from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def watchdog(what: str, *, seconds: float = _START_LIMIT_SECONDS, grace: float = _GRACE_SECONDS) -> Iterator[None]:
    """Interrupt a block that takes longer than `seconds`, with a `JobError`; `what` names the block in the message.

    A block that hangs in Ray's C++ core does not notice the interrupt. Then, after `grace` seconds, the process writes
    the same line to stderr and exits with `EXIT_FAILED`. Only the main thread can be interrupted; in another thread
    this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    message = f"{what} did not start within {seconds:g} s; try a machine that is less busy, or another --address"
    ended, interrupted = threading.Event(), threading.Event()

    def watch() -> None:
        if ended.wait(seconds):
            return
        interrupted.set()
        _thread.interrupt_main()
        if not ended.wait(grace):
            print(f"yolact: {message}", file=sys.stderr, flush=True)
            os._exit(EXIT_FAILED)

    watcher = threading.Thread(target=watch, name="watchdog", daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        if interrupted.is_set():
            raise JobError(message) from None
        raise
    finally:
        ended.set()
        watcher.join()
