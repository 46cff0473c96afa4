"""An HTTP proxy in front of the S3 server: it records every request, throttles on demand, and strikes at a request.

Requests go through with the Host header that the client signed, which is the proxy's own address. The server checks
signatures against the header that it receives, so it accepts them.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

#: what a store charges for. POST are the two requests around the parts of a large object
Kind = Literal["GET", "HEAD", "LIST", "PUT", "POST", "COPY", "DELETE"]
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Request:
    """One request that was answered. `at` is `time.time()` of the answer; `path` is /bucket/key without escapes."""

    at: float
    kind: Kind
    path: str
    status: int
    completes: bool
    """whether there is a whole new object at `path` afterwards"""
    sent: int
    """bytes of the body that the client sent"""
    received: int
    """bytes of the body that the client received"""


@dataclass(frozen=True)
class _Strike:
    matches: Callable[[Request], bool]
    blow: Callable[[], None]


class StoreProxy:
    """Forwards to `backend` ("http://host:port"). A context manager: it runs in the `with` block at `endpoint`."""

    def __init__(self, backend: str) -> None:
        self.backend = backend.removeprefix("http://")
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._throttled_until = 0.0
        self._strike: _Strike | None = None
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> StoreProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their answers."""
        with self._lock:
            return list(self._requests)

    def throttle(self, seconds: float) -> None:
        """Answer every request of the next `seconds` with 503 SlowDown."""
        self._throttled_until = time.monotonic() + seconds

    @property
    def is_throttled(self) -> bool:
        """Whether requests are answered with 503 SlowDown now."""
        return time.monotonic() < self._throttled_until

    def strike(self, matches: Callable[[Request], bool], blow: Callable[[], None]) -> None:
        """At the next request that `matches`, call `blow` after the store has served it. Its client gets no answer."""
        with self._lock:
            self._strike = _Strike(matches, blow)

    def record(self, request: Request) -> Callable[[], None] | None:
        """Note a request; returns the blow that belongs to it, which is given once."""
        with self._lock:
            self._requests.append(request)
            if self._strike is None or not self._strike.matches(request):
                return None
            blow, self._strike = self._strike.blow, None
            return blow


def kind_of(method: str, target: str, *, copies: bool = False) -> tuple[Kind, bool]:
    """What a request to `target` (path and query) is, and whether a success leaves a whole new object."""
    split = urlsplit(target)
    query = parse_qs(split.query, keep_blank_values=True)
    has_key = bool(split.path.strip("/").partition("/")[2])
    if method == "DELETE" or (method == "POST" and "delete" in query):
        return "DELETE", False
    if method == "HEAD":
        return "HEAD", False
    if method == "GET":
        return ("GET" if has_key else "LIST"), False
    if method == "POST":
        return "POST", "uploadId" in query
    return ("COPY" if copies else "PUT"), has_key and "partNumber" not in query


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error of a handler, but not that a client went away: it was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(proxy: StoreProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.proxy = proxy
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # without it a small answer waits for the client's acknowledgement of its head
    disable_nagle_algorithm = True
    proxy: StoreProxy

    def _serve(self) -> None:
        body = self._body()
        if self.proxy.is_throttled:
            status, headers, data = 503, [("Content-Type", "application/xml")], _SLOW_DOWN
        else:
            status, headers, data = self._forward(body)
        kind, completes = kind_of(self.command, self.path, copies="x-amz-copy-source" in self.headers)
        is_head = self.command == "HEAD"
        request = Request(
            at=time.time(),
            kind=kind,
            path=unquote(urlsplit(self.path).path),
            status=status,
            completes=completes and status < 300,
            sent=len(body),
            received=0 if is_head else len(data),
        )
        if blow := self.proxy.record(request):
            blow()
            self.close_connection = True
            return
        self._answer(status, headers, data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        # a connection of its own: one that the server closed meanwhile would have to send a put twice
        backend = http.client.HTTPConnection(self.proxy.backend, timeout=60)
        try:
            return self._exchange(backend, body)
        finally:
            backend.close()

    def _exchange(self, backend: http.client.HTTPConnection, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection", "transfer-encoding", "content-length"):
                backend.putheader(name, value)
        backend.putheader("Content-Length", str(len(body)))
        backend.endheaders(body)
        response = backend.getresponse()
        data = response.read()
        if self.command == "HEAD":
            # only the length counts: `_answer` sends no body
            data = bytes(int(response.getheader("Content-Length") or 0))
        return response.status, response.getheaders(), data

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        try:
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
        except OSError:
            # the client is gone: it was killed
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""
