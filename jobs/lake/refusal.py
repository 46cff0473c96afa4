"""Objects that their store refuses (HTTP 401 or 403). Does it refuse this object only, or everything?

An object that is refused while others of the same store can be read becomes a row with status `unreadable`. A refusal
of everything is transient: credentials expire, and policies take a while to spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from jobs.storage import (
    ObjectChangedError,
    Retry,
    StorageError,
    TransientStorageError,
    iter_objects,
    read_range,
    store_of,
)

Result = TypeVar("Result")

#: how many other objects are tried: of those that the caller knows, and again of those in the same folder
_MOST_ASKED = 8
#: how often another object and the refused one are tried in turn; the answers must agree each time
_ROUNDS = 2
#: attempts for a refused object of a store that is known to refuse single objects
_QUICK_ATTEMPTS = 4
#: stores in which this process found an object that is refused while others are not
_refusing: set[tuple[str, str]] = set()


def read_unless_refused(
    read: Callable[[Retry], Result], uri: str, *, others: Sequence[str] = (), retry: Retry
) -> Result:
    """`read(retry)`. If the store refuses only this object, the error is a permanent one.

    When the retries of a refused object are used up, one byte of other objects is read: first of those among `others`
    that are in the same store, then of those in the folder of `uri`. `uri` is tried again in turn. Raises StorageError
    if another object can be read and `uri` cannot, and everything else that `read` raises. The first such object of a
    store takes all retries; for later ones a few attempts are enough.
    """
    if store_of(uri) in _refusing:
        try:
            return read(replace(retry, refused_attempts=_QUICK_ATTEMPTS))
        except TransientStorageError as error:
            if error.reason != "forbidden":
                raise
            if _is_refused_alone(uri, others):
                raise _permanent(error) from None
    try:
        return read(retry)
    except TransientStorageError as error:
        if error.reason == "forbidden" and _is_refused_alone(uri, others):
            _refusing.add(store_of(uri))
            raise _permanent(error) from None
        raise


def _permanent(error: StorageError) -> StorageError:
    return StorageError(f"{error}; other objects of this store can be read", error.reason)


def _is_refused_alone(uri: str, others: Sequence[str]) -> bool:
    return all(any(map(_answers, _candidates(others, uri))) and _is_refused(uri) for _ in range(_ROUNDS))


def _candidates(others: Sequence[str], refused: str) -> Iterator[str]:
    same_store = [uri for uri in dict.fromkeys(others) if uri != refused and store_of(uri) == store_of(refused)]
    step = max(1, len(same_store) // _MOST_ASKED)
    yield from same_store[::step][:_MOST_ASKED]
    try:
        beside = iter_objects(refused.rpartition("/")[0], recursive=False, retry=_once())
        yield from islice((item.uri for item in beside if item.uri != refused), _MOST_ASKED)
    except StorageError:  # who may read need not be allowed to list
        return


def _answers(uri: str) -> bool:
    try:
        read_range(uri, 0, 1, retry=_once())
    except ObjectChangedError:  # an empty object has no first byte; the store answered all the same
        return True
    except StorageError:
        return False
    return True


def _is_refused(uri: str) -> bool:
    try:
        read_range(uri, 0, 1, retry=_once())
    except StorageError as error:
        return error.reason == "forbidden"
    return False


def _once() -> Retry:
    return Retry(attempts=1)
