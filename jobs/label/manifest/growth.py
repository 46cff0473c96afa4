"""Indexes the rest of a large lake in a thread, while the images that are indexed already are labelled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from jobs import lake
from jobs.label.fence import Fence
from jobs.label.manifest.indexing import Indexing, add_generation
from jobs.label.manifest.parts import Generation, Part, all_parts
from jobs.lake import Source

#: seconds that the thread has to end after it was stopped: it may be in the middle of a request to the store
_STOP_SECONDS = 10.0


class Growth:
    """Adds generations to the manifest, one after the other, within the `with` block.

    A generation is final before its parts are given to the caller, as if a run of its own had added it. So a kill
    leaves what a kill during any indexing leaves: the next run indexes what is not final.
    """

    def __init__(
        self,
        indexing: Indexing,
        generations: Sequence[Generation],
        chunks: Sequence[Sequence[Source]],
        passed_over: lake.PassedOver | None = None,
    ) -> None:
        """`generations` are all that there are; each of `chunks` becomes one more. `passed_over` is known already."""
        self._stopped = threading.Event()
        self._indexing = replace(indexing, fence=_UntilStopped(indexing.fence, self._stopped))
        self._chunks = chunks
        self.generations = list(generations)
        """all generations; complete when `take` has returned False"""
        self.parts_before = tuple(all_parts(generations))
        """the parts of `generations`"""
        self.passed_over = [] if passed_over is None else [passed_over]
        self._lock = threading.Lock()
        self._new: list[Part] = []
        self._failure: BaseException | None = None
        self._growing = bool(chunks)
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)

    def __enter__(self) -> Growth:
        if self._growing:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def take(self) -> tuple[list[Part], bool]:
        """The parts that were added since the last call, and whether more may come. Raises what the indexing raised."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            new, self._new = self._new, []
            return new, self._growing

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                added = add_generation(self._indexing, self.generations, chunk)
                with self._lock:
                    self.generations.append(added.generation)
                    self.passed_over.append(added.passed_over)
                    self._new += added.generation.parts
        except BaseException as error:
            with self._lock:
                self._failure = error
        finally:
            with self._lock:
                self._growing = False


class _StoppedError(Exception):
    """Ends the thread; nobody waits for its outcome any more."""


class _UntilStopped(Fence):
    """The driver's fence, for a thread: after `stopped` nothing is written any more, although the lease may be held."""

    def __init__(self, fence: Fence, stopped: threading.Event) -> None:
        self._fence, self._stopped = fence, stopped

    def check(self) -> None:
        """Raise `_StoppedError` if the thread was stopped, and `JobError` if the lease is lost."""
        if self._stopped.is_set():
            raise _StoppedError
        self._fence.check()
