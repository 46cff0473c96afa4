"""Web servers, by HTTP: read only. Ranges are used if the server has them; folders are the links of index pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from html.parser import HTMLParser
from typing import Any, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

from fsspec.asyn import sync

from jobs.storage.errors import ObjectChangedError, RetryableError, StorageError
from jobs.storage.fsspec_store import FsspecStore
from jobs.storage.store import ObjectInfo, Page

Result = TypeVar("Result")

#: the largest object that is read whole if its server gives no ranges
_MOST_WITHOUT_RANGES = 64 << 20
#: statuses of servers that answer GET but not HEAD
_NO_HEAD = (403, 405, 501)


class HttpStore(FsspecStore):
    """Operations through the session of fsspec's HTTP client, each cut off after `timeout` seconds.

    Raises aiohttp's own errors, which carry the status: fsspec would call every failure a missing file.
    """

    def __init__(self, filesystem: Any, timeout: float) -> None:
        super().__init__(filesystem, "https")
        self.timeout = timeout

    def info(self, path: str) -> ObjectInfo:
        status, headers, url, _ = self._request("HEAD", path, {})
        if status in _NO_HEAD:
            status, headers, url, _ = self._request("GET", path, {"Range": "bytes=0-0"})
        is_page = headers.get("Content-Type", "").startswith("text/html") and "." not in path.rpartition("/")[2]
        if url.endswith("/") or is_page:
            raise FileNotFoundError(path)  # a folder's index page
        total = _total(status, headers)
        return ObjectInfo(path, -1 if total is None else total, _version(headers, total))

    def read(self, path: str, offset: int, length: int | None, etag: str | None) -> bytes:
        wants_part = offset > 0 or length is not None
        last = "" if length is None else offset + length - 1
        status, headers, _, data = self._request("GET", path, {"Range": f"bytes={offset}-{last}"} if wants_part else {})
        total = _total(status, headers)
        if etag is not None and _version(headers, total) not in ("", etag):
            raise ObjectChangedError(f"{path} changed since it was listed")
        if wants_part and status == 200:  # the server gave all of it
            data = data[offset:] if length is None else data[offset : offset + length]
        if length is not None and total is not None and total < offset + length:
            raise ObjectChangedError(f"{path} has only {total} of {offset + length} bytes")
        if length is not None and len(data) != length:
            raise RetryableError("short body", f"{len(data)} bytes arrived instead of {length}")
        return data

    def list_page(self, folder: str, name_prefix: str, recursive: bool, token: str | None) -> Page:
        """Sizes are unknown (-1), because the sizes on an index page are not reliable."""
        top = folder.rstrip("/") + "/"
        objects: list[ObjectInfo] = []
        waiting, seen = [top], {top}
        while waiting:
            for link in self._links(waiting.pop()):
                if link in seen or not link.startswith(top + name_prefix):
                    continue
                seen.add(link)
                if not link.endswith("/"):
                    objects.append(ObjectInfo(link, -1, ""))
                elif recursive:
                    waiting.append(link)
        return Page(objects)

    def has_folder(self, path: str) -> bool:
        return bool(self._links(path.rstrip("/") + "/"))

    def _links(self, folder: str) -> list[str]:
        """The addresses right below `folder` that its index page links to; none where there is no such page."""
        try:
            _, headers, _, data = self._request("GET", folder, {})
        except FileNotFoundError:
            return []
        if not headers.get("Content-Type", "").startswith("text/html"):
            return []
        parser = _Links()
        parser.feed(data.decode("utf-8", "replace"))
        addresses = (urldefrag(urljoin(folder, link)).url for link in parser.found)
        return list(dict.fromkeys(a for a in addresses if a.startswith(folder) and not urlsplit(a).query))

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str, bytes]:
        """(status, headers, address after redirections, body)."""

        async def request() -> tuple[int, Mapping[str, str], str, bytes]:
            session = await self.filesystem.set_session()
            wanted = {"Accept-Encoding": "identity", **headers}
            encoded = self.filesystem.encode_url(url)
            async with session.request(method, encoded, headers=wanted, allow_redirects=True) as response:
                if response.status == 404:
                    raise FileNotFoundError(url)
                if not (method == "HEAD" and response.status in _NO_HEAD):
                    response.raise_for_status()
                if "Range" in headers and response.status == 200:
                    _refuse_large(url, _total(200, response.headers))
                body = b"" if method == "HEAD" else await response.read()
                return response.status, response.headers, str(response.url), body

        return self._wait(request)

    def _wait(self, coroutine: Callable[[], Awaitable[Result]]) -> Result:
        async def bounded() -> Result:
            return await asyncio.wait_for(coroutine(), self.timeout)

        result: Result = sync(self.filesystem.loop, bounded)
        return result


class _Links(HTMLParser):
    """Collects the targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _refuse_large(url: str, total: int | None) -> None:
    if total is None or total > _MOST_WITHOUT_RANGES:
        size = "an unknown number of" if total is None else f"{total}"
        raise StorageError(
            f"{url}: its server ignores Range requests, and would send all of its {size} bytes each time"
        )


def _total(status: int, headers: Mapping[str, str]) -> int | None:
    """The size of the whole object; None if the answer does not say it."""
    text = headers.get("Content-Range", "").rpartition("/")[2] if status == 206 else headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _version(headers: Mapping[str, str], total: int | None) -> str:
    for name in ("ETag", "Content-MD5", "Last-Modified"):
        if headers.get(name):
            return headers[name].removeprefix("W/").strip('"')
    return "" if total is None else f"size-{total}"
