"""An HTTP proxy in front of the test server that fails on demand: throttling, resets, short bodies, stalls, 403s.

Requests go through with the Host header that the client signed, the proxy's own address: the server checks signatures
against the header it receives, so it accepts them.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

#: slow_down 503, server_error 500, forbidden 403, archived 403 InvalidObjectState, expired 400 ExpiredToken, missing
#: 404: answered by the proxy itself.
#: reset: the connection breaks within the body (or instead of an answer without one). short_body: it is closed in good
#: order before the promised length. short_length: fewer bytes than asked for, with a length that agrees. stall: silence
#: for `seconds` before the answer. stall_body: silence within the body. lost_answer: the server does as asked, and the
#: connection breaks before its answer.
Kind = Literal[
    "slow_down",
    "server_error",
    "forbidden",
    "archived",
    "expired",
    "missing",
    "reset",
    "short_body",
    "short_length",
    "stall",
    "stall_body",
    "lost_answer",
]
_ANSWERS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "server_error": (500, "InternalError", "We encountered an internal error. Please try again."),
    "forbidden": (403, "AccessDenied", "Access Denied"),
    "archived": (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "missing": (404, "NoSuchKey", "The specified key does not exist."),
}


@dataclass
class Rule:
    """Faults for requests of `method` whose path contains `path`: the next `times` of them, or all; `hits` counts."""

    kind: Kind
    times: int | None
    method: str | None
    path: str
    every: int
    seconds: float
    hits: int = 0
    seen: int = 0

    def applies(self, method: str, path: str) -> bool:
        if (self.method not in (None, method)) or self.path not in path:
            return False
        self.seen += 1
        if (self.times is not None and self.hits >= self.times) or self.seen % self.every:
            return False
        self.hits += 1
        return True


@dataclass
class FaultProxy:
    """Forwards to `backend` ("http://host:port"); usable as a context manager."""

    backend: str
    rules: list[Rule] = field(default_factory=list)
    #: (method, path, status) of everything that was answered; status 0 where the connection was broken instead
    requests: list[tuple[str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(
        self,
        kind: Kind,
        times: int | None = 1,
        *,
        method: str | None = None,
        path: str = "",
        every: int = 1,
        seconds: float = 10.0,
    ) -> Rule:
        """Adds a rule: `times` None is until `clear`; `every` n lets n − 1 requests pass before each fault."""
        rule = Rule(kind, times, method, path, every, seconds)
        with self._lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        with self._lock:
            self.rules.clear()

    def fault_for(self, method: str, path: str) -> Rule | None:
        with self._lock:
            return next((rule for rule in self.rules if rule.applies(method, unquote(path))), None)

    def note(self, method: str, path: str, status: int) -> None:
        with self._lock:
            self.requests.append((method, unquote(path), status))


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.proxy = proxy
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.fault_for(self.command, self.path)
        kind = rule.kind if rule else None
        if kind in _ANSWERS:
            self._refuse(*_ANSWERS[kind])
            return
        if rule and kind == "stall":
            time.sleep(rule.seconds)
        status, headers, data = self._forward(body)
        promised = len(data)
        if kind == "short_length":
            data, promised = data[: promised // 2], promised // 2
        broken = kind in ("reset", "short_body", "lost_answer")
        self.proxy.note(self.command, self.path, 0 if broken else status)
        if kind == "lost_answer" or (kind == "reset" and promised < 2):
            self._break()
            return
        self._send_head(status, headers, promised)
        if self.command == "HEAD":
            return
        half = promised // 2
        self.wfile.write(data[:half])
        if kind == "reset":
            self._break()
        elif kind == "short_body":
            self.close_connection = True
        else:
            if rule and kind == "stall_body":
                self.wfile.flush()
                time.sleep(rule.seconds)
            self.wfile.write(data[half:])

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        backend = http.client.HTTPConnection(self.proxy.backend.removeprefix("http://"), timeout=60)
        try:
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    backend.putheader(name, value)
            backend.endheaders(body)
            response = backend.getresponse()
            data = response.read()
            headers = response.getheaders()
            if self.command == "HEAD":
                data = bytes(int(response.getheader("Content-Length") or 0))
            return response.status, headers, data
        finally:
            backend.close()

    def _send_head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.proxy.note(self.command, self.path, status)
        self._send_head(status, [("Content-Type", "application/xml")], len(text))
        if self.command != "HEAD":
            self.wfile.write(text)

    def _break(self) -> None:
        """Closes with a reset, as a crashing server or a cut connection does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
