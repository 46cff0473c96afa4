"""A web server for tests: a folder with index pages, by the standard library's handler, with or without ranges."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebServer:
    """Serves `folder`; usable as a context manager. `requests` are (method, path, status) of all that was answered."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.requests: list[tuple[str, str, int]] = []
        self.failing: dict[str, int] = {}  # path: the status that it is answered with instead
        handler = partial(_RangeHandler if ranges else _Handler, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.owner = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self._fails():
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self._fails():
            super().do_HEAD()

    def _fails(self) -> bool:
        status = self.server.owner.failing.get(self.path)  # type: ignore[attr-defined]
        if status is not None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return status is not None

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self.server.owner.requests.append((self.command, self.path, int(getattr(code, "value", code))))  # type: ignore

    def log_message(self, format: str, *args: object) -> None:
        pass


class _RangeHandler(_Handler):
    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if self._fails():
            return
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        if not part:
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(part)
