"""The web server of a preview in the browser: its requests, and who may make them.

Who may: only addresses that hold the token (a path that is drawn anew for each server), only under a name of this
machine (so that no other site's name can be pointed here), and only this page may send anything. What there is: the
page, the stream of pictures and panels, and the reports that ``reports`` has checked. Nothing is read from or written
to a file, and nothing that a browser does, be it gone, slow or hostile, reaches the training.
"""

import ipaddress
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tslim.errors import BackendError
from tslim.preview import reports

if TYPE_CHECKING:
    from tslim.preview.server import ServerLink

PORT = 8642
TRIES = 10
"""Ports that are tried, one after the other, unless one is asked for."""
LOCAL = "127.0.0.1"
MOST_CONNECTIONS = 64
MOST_BYTES = 65536
"""Most bytes of a message."""
SILENCE_SECONDS = 20.0
"""Seconds after which a browser that takes nothing is given up."""


def listening(host: str | None, port: int) -> "Server":
    """A server at the port, or at the first of some that is free; for this machine alone if ``host`` is None.

    Raises ``BackendError`` where nothing can listen.
    """
    host = host or LOCAL
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in [port] if port else range(PORT, PORT + TRIES):
        try:
            return Server((host, tried), family)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or str(error)
    where = port or f"{PORT} to {PORT + TRIES - 1}"
    raise BackendError(f"cannot serve the preview on {host}, port {where}: {problem}; choose another: --serve PORT")


def address_of(host: str | None) -> str:
    """The host of the address that is printed."""
    if host is None:
        return LOCAL
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def names_of(host: str | None) -> set[str]:
    """Names under which requests are accepted: this machine's own, and what it was asked to listen on."""
    return {"localhost", LOCAL, "::1"} | ({host.lower(), socket.gethostname().lower()} if host else set())


class Server(ThreadingHTTPServer):
    """Answers requests for the ``page`` and for what ``link`` has, under the ``names`` of this machine alone."""

    daemon_threads = True
    allow_reuse_address = True
    link: "ServerLink"
    page: bytes
    names: set[str]

    def __init__(self, address: tuple[str, int], family: int) -> None:
        self.address_family = family
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, unless there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes in the middle of something is nothing to speak of."""

    def is_ours(self, host: str | None) -> bool:
        """Whether a request's Host names this machine: by a name that is known, or where others may come in, by any
        number, which no foreign name can be."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self.names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return len(self.names) > len(names_of(None))


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "tslim", ""
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:  # noqa: N802
        """The page, or the stream."""
        asked = self._requested_path()
        if asked == "":
            self._answer(200, self.server.page, "text/html; charset=utf-8")
        elif asked == "stream":
            self.send_response(200)
            self._send_common_headers("application/octet-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self.server.link.watch(self.wfile.write)
        elif asked is not None:
            self._answer(404, b"there is nothing here")

    def do_POST(self) -> None:  # noqa: N802
        """What the user did."""
        began = time.thread_time()
        asked = self._requested_path()
        if asked is None:
            return
        origin = self.headers.get("Origin")
        length = self.headers.get("Content-Length", "")
        if asked != "input":
            self._answer(404, b"there is nothing here")
        elif origin is not None and origin.partition("://")[2] != self.headers.get("Host"):
            self._answer(403, b"only the preview's own page may do this")
        elif self.headers.get("Content-Type") != "application/json":
            self._answer(415, b"expected application/json")
        elif not length.isdigit() or int(length) > MOST_BYTES:
            self._answer(413, b"too long")
        else:
            try:
                self.server.link.take(reports.checked(json.loads(self.rfile.read(int(length)))))
            except (ValueError, KeyError, TypeError, RecursionError):
                self._answer(400, b"not what the preview's page would send")
            else:
                self._answer(204, b"")
        self.server.link.spent(time.thread_time() - began)

    def _requested_path(self) -> str | None:
        """What is asked for; None if the request was refused."""
        if not self.server.is_ours(self.headers.get("Host")):
            self._answer(421, b"this is not the machine that you think it is")
            return None
        asked = self.server.link.knows(self.path.partition("?")[0])
        if asked is None:
            self._answer(403, b"the address lacks its token: copy all of what tslim printed")
        return asked

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self._send_common_headers(kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        if status >= 400:  # what a body holds that was not read must not be taken for another request
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _send_common_headers(self, kind: str) -> None:
        for name, value in (
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
