"""A small archive on 127.0.0.1 whose server misbehaves as asked: it drops connections, ignores ranges, lies about sizes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote


class Archive:
    """Files below a folder, and what goes wrong with them.

    Attributes
    ----------
    url : str
        Address of the folder.
    requests : list of (method, path, range)
        What was asked for.
    drop : dict
        ``{path: [bytes after which the connection ends, one a request]}``.
    ignore_range, wrong_size, busy : Counter
        ``{path: requests that are answered from the start, with a size of one byte less, with 503}``.
    corrupt : Counter
        ``{path: requests that are answered with one wrong byte}``.
    hang : dict
        ``{path: bytes after which the server sends nothing more}``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.requests: list[tuple[str, str, str | None]] = []
        self.drop: dict[str, list[int]] = {}
        self.ignore_range: Counter[str] = Counter()
        self.wrong_size: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.corrupt: Counter[str] = Counter()
        self.hang: dict[str, int] = {}
        self.released = threading.Event()

    def ranges(self, path: str) -> list[str | None]:
        """Return the ranges that were asked for of ``path``."""
        return [asked for method, name, asked in self.requests if (method, name) == ("GET", path)]

    def take(self, counter: Counter[str], path: str) -> bool:
        counter[path] -= 1
        return counter[path] >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive: Archive

    def log_message(self, *arguments: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that hangs up is none of the server's faults
            super().handle()

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, *, send: bool) -> None:
        archive, path = self.archive, unquote(self.path).lstrip("/")
        asked = self.headers.get("Range")
        archive.requests.append((self.command, path, asked))
        file = archive.folder / path
        if send and archive.take(archive.busy, path):
            self._head(503, {"Content-Length": "0", "Retry-After": "0"})
        elif file.is_dir():
            self._send(200, _index(file), {}, send)
        elif not file.is_file():
            self._head(404, {"Content-Length": "0"})
        else:
            self._send_file(path, file.read_bytes(), asked, send)

    def _send_file(self, path: str, data: bytes, asked: str | None, send: bool) -> None:
        archive = self.archive
        if send and archive.take(archive.corrupt, path):
            data = bytes([data[0] ^ 1]) + data[1:]
        tag = f'"{len(data)}-{(archive.folder / path).stat().st_mtime_ns}"'
        if asked and not archive.take(archive.ignore_range, path) and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
                return
            extent = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], {"Content-Range": extent, "ETag": tag}, send, path)
        elif send and archive.take(archive.wrong_size, path):
            self._send(200, data[:-1], {"ETag": tag}, send, path)
        else:
            self._send(200, data, {"ETag": tag}, send, path)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, status: int, data: bytes, headers: dict[str, str], send: bool, path: str = "") -> None:
        self._head(status, {"Content-Length": str(len(data)), **headers})
        if not send:
            return
        ends = self.archive.drop.get(path)
        if ends:
            self.wfile.write(data[: ends.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        elif path in self.archive.hang:
            self.wfile.write(data[: self.archive.hang.pop(path)])
            self.wfile.flush()
            self.archive.released.wait(30)
            self.close_connection = True
        else:
            self.wfile.write(data)


def _index(folder: Path) -> bytes:
    """Return what Apache shows of a folder: sorted columns, the folder above, names."""
    lines = ['<a href="?C=N;O=D">Name</a> <a href="?C=S;O=A">Size</a>', '<a href="/">Parent Directory</a>']
    for entry in sorted(folder.iterdir()):
        name = entry.name + ("/" if entry.is_dir() else "")
        lines.append(f'<img src="/icons/movie.gif"> <a href="{quote(name)}">{name}</a> 2020-01-01 10:00 1.2G')
    return ("<html><body><pre>" + "\n".join(lines) + "</pre></body></html>").encode()


@contextmanager
def serve(folder: Path) -> Iterator[Archive]:
    """Serve ``folder`` from a thread until the block ends."""
    archive = Archive(folder)
    handler = type("Handler", (_Handler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    archive.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        archive.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
