"""Retries with growing, random delays, a limit, and a count of the reasons."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from jobs.runtime.errors import UsageError
from jobs.storage.errors import (
    Failure,
    ObjectChangedError,
    ObjectMissingError,
    StorageError,
    TransientStorageError,
    classify,
)

Result = TypeVar("Result")

#: errors of this program and not of a store: they are raised unchanged, with their traceback
_BUGS = (TypeError, AttributeError, NameError, AssertionError, MemoryError)


@dataclass
class Retry:
    """How often and how long to try, and which attempts were repeated so far.

    One object may serve many operations, also from several threads. The limits hold for each operation, the counts for
    all of them. The first delay is `first_delay` seconds, and each next one is twice as long, up to `max_delay`. Each
    delay is shortened by up to a half at random, so that workers that failed together do not try again together.
    """

    attempts: int = 10
    #: most attempts if the store refuses (HTTP 401 or 403); None is the same as `attempts`
    refused_attempts: int | None = None
    #: no new attempt starts later than this after the operation's first one
    total_seconds: float = 120.0
    #: one attempt is cut off after this many seconds, even if bytes still arrive
    attempt_seconds: float = 600.0
    first_delay: float = 0.25
    max_delay: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    _reasons: list[str] = field(default_factory=list, repr=False)  # appended to by several threads

    @property
    def counts(self) -> Counter[str]:
        """How many attempts had to be repeated, by reason ("throttled", "time-out", "connection", "short body" …)."""
        return Counter(self._reasons)

    def call(
        self,
        operation: Callable[[], Result],
        what: str,
        on_retry: Callable[[Failure], None] | None = None,
    ) -> Result:
        """Run `operation` until it succeeds; `what` says in messages what was tried ("read s3://…").

        Raises TransientStorageError when the retries are used up, ObjectMissingError, ObjectChangedError (a failed
        precondition, or a range past the object's end) and StorageError (anything else) at once. The client's own
        exception is not chained: its text may hold a signed URL.
        """
        started = time.monotonic()
        for attempt in range(1, self.attempts + 1):
            try:
                return operation()
            except (StorageError, UsageError, *_BUGS):
                raise
            except Exception as error:
                failure = classify(error)
                if failure.kind != "transient":
                    raise _final(failure, what) from None
                delay = self._delay(attempt)
                elapsed = time.monotonic() - started
                if attempt >= self._most_attempts(failure) or elapsed + delay > self.total_seconds:
                    message = f"cannot {what}: {failure.detail} (gave up after {attempt} attempts in {elapsed:.0f} s)"
                    raise TransientStorageError(message, failure.reason) from None
            self._reasons.append(failure.reason)
            if on_retry is not None:
                on_retry(failure)
            self.sleep(delay)
        raise ValueError(f"attempts must be at least 1, not {self.attempts}")

    def _most_attempts(self, failure: Failure) -> int:
        if failure.reason == "forbidden" and self.refused_attempts is not None:
            return min(self.attempts, self.refused_attempts)
        return self.attempts

    def _delay(self, attempt: int) -> float:
        ceiling = min(self.max_delay, self.first_delay * 2 ** (attempt - 1))
        return ceiling * random.SystemRandom().uniform(0.5, 1.0)


def _final(failure: Failure, what: str) -> StorageError:
    if failure.kind == "missing":
        return ObjectMissingError(f"cannot {what}: {failure.detail}", "missing")
    if failure.kind in ("precondition", "range"):
        return ObjectChangedError(f"cannot {what}: it is not the object that was listed ({failure.detail})", "changed")
    return StorageError(f"cannot {what}: {failure.detail}", failure.reason)
