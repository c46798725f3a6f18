"""A Hugging Face hub on loopback, for the real huggingface_hub client: listings, HEAD, ranges."""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?$")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Repository:
    """One commit of a repository; the branch `main` and each of `tags` names it."""

    files: dict[str, bytes]
    tags: tuple[str, ...] = ()
    is_gated: bool = False
    listed: tuple[str, ...] = ()  # further names in its listing
    cut: dict[str, int] = field(default_factory=dict)  # once: bytes of a file before the end
    headers: dict[str, str] = field(default_factory=dict)  # of every file, laid over the right ones

    @property
    def commit(self) -> str:
        each = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items())
        return hashlib.sha1(repr(each).encode()).hexdigest()

    @property
    def revisions(self) -> tuple[str, ...]:
        return ("main", self.commit, *self.tags)


@dataclass
class Hub:
    """What it serves, and what it was asked: (method, path, Range, Authorization)."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    status: int | None = None  # of every answer, if it is ill
    token: str = "hf_secret_of_a_user"
    url: str = ""

    def fetched(self) -> list[str]:
        """The files whose content was asked for."""
        paths = [unquote(path) for method, path, *_ in self.asked if method == "GET"]
        return [found[3] for path in paths if (found := RESOLVE.match(path))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one piece: no wait for an acknowledgement
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append(
            (self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        if self.hub.status:
            self._send(self.hub.status, b"ill")
        elif found := API.match(path):
            self._listing(unquote(found[1]), unquote(found[2] or "main"))
        elif found := RESOLVE.match(path):
            self._file(unquote(found[1]), unquote(found[2]), unquote(found[3]))
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _found(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:  # as the hub says to strangers
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in repository.revisions:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def _listing(self, name: str, revision: str) -> None:
        repository = self._found(name, revision)
        if repository is None:
            return
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for path, data in repository.files.items()
        ]
        siblings += [
            {"rfilename": path, "size": 1, "blobId": "0" * 40} for path in repository.listed
        ]
        told = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
        self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._found(name, revision)
        if repository is None:
            return
        if repository.is_gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        if path not in repository.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = repository.files[path]
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": repository.commit,
            "Accept-Ranges": "bytes",
        } | repository.headers
        begin = 0
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            begin = int(asked[1])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        stop = repository.cut.pop(path, None) if self.command == "GET" else None
        self._send(206 if begin else 200, data[begin:], headers, stop)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:stop])
        if stop is not None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(port: int = 0) -> Iterator[Hub]:
    """Yield a hub at a loopback address, at a free port or the one given."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as a repository has them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
