"""Listing in parallel: a store gives the pages of a prefix one after the other, so folders are listed side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from jobs.storage.store import ObjectInfo, Page

_AT_ONCE = 16
#: where the objects of one page lie in more folders than this, a request for each folder costs more than it saves
_MOST_FOLDERS_OF_A_PAGE = 4

#: lists a page: name prefix, recursive, token
ListPage = Callable[[str, bool, str | None], Page]


@dataclass(frozen=True)
class _Request:
    prefix: str
    recursive: bool
    token: str | None = None


def is_worth_splitting(page: Page) -> bool:
    """Whether, after this first page of a recursive listing, the folders should be listed side by side."""
    return page.token is not None and 0 < len(page.folders) <= _MOST_FOLDERS_OF_A_PAGE


def iter_in_parallel(list_page: ListPage, name_prefix: str) -> Iterator[ObjectInfo]:
    """All objects whose path continues with `name_prefix`, in no order. Raises what `list_page` raises.

    The first level is listed, and then each of its folders; a large folder with folders in it is split again.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    waiting = deque([_Request(name_prefix, recursive=False)])
    running: dict[Future[Page], _Request] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                request = waiting.popleft()
                running[pool.submit(list_page, request.prefix, request.recursive, request.token)] = request
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                request, page = running.pop(future), future.result()
                if request.recursive and request.token is None and is_worth_splitting(page):
                    # its objects come again, folder by folder
                    waiting.append(replace(request, recursive=False))
                    continue
                if page.token is not None:
                    waiting.appendleft(replace(request, token=page.token))
                if not request.recursive:
                    # a store that names the folder itself among its folders must not be asked for it for ever
                    folders = (folder for folder in page.folders if len(folder) > len(request.prefix))
                    waiting.extend(_Request(folder, recursive=True) for folder in folders)
                yield from page.objects
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
