"""The preview in a browser: a small web server that stands where the window's process does (see ``link``).

It is on the standard library. viser, which nerfstudio and gsplat users know, would bring six packages (and an older
rich than ours), and with its client a camera, panels and plots of its own: another preview beside this one. Here the
browser shows the very pictures and the very panel that the window shows, and reports the same mouse and keys; what it
costs is one JPEG a picture (some 10 ms for 1280 x 800), made in the trainer's turn and so within its share of time.
Either way a picture goes over one connection that stays open, so that the latency is the network's.

Who may: only addresses that hold the token (a path that is drawn anew for each server), only under a name of this
machine (so that no other site's name can be pointed here), and only this page may send anything. What there is: the
page, the stream of pictures and panels, and the reports that ``reports`` has checked. Nothing is read from or written
to a file, and nothing that a browser does, be it gone, slow or hostile, reaches the training.
"""

import hmac
import io
import ipaddress
import json
import secrets
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tslim.errors import BackendError
from tslim.preview import reports
from tslim.web.live import live_page

PORT = 8642
TRIES = 10
"""Ports that are tried, one after the other, unless one is asked for."""
LOCAL = "127.0.0.1"
MOST_CLIENTS = 8
MOST_CONNECTIONS = 64
MOST_BYTES = 65536
"""Most bytes of a message."""
MOST_WAITING = 512
"""Most reports that wait for the trainer; beyond, the oldest are lost."""
GRACE_SECONDS = 10.0
"""Seconds in which a browser that has gone may come back before it counts as gone."""
SILENCE_SECONDS = 20.0
"""Seconds after which a browser that takes nothing is given up."""
BEAT_SECONDS = 5.0
"""Seconds between two signs of life, which find out that a browser has gone."""
QUALITY = 90
"""JPEG quality of the pictures."""
PICTURE, PANEL, BEAT, END = b"P", b"L", b"B", b"E"
_FRAME = struct.Struct(">cI")


class _Client:
    """A browser that watches: what it has been sent."""

    def __init__(self) -> None:
        self.seq = -1
        self.picture = 0


class ServerLink:
    """Stands where ``WindowLink`` does. ``address`` is what to open; ``closed`` says whether it has ended.

    Args:
        port: where to listen; ``PORT`` or one of the next if 0.
        host: an address of this machine, for other machines to come in by; only this machine may if None.

    Raises:
        BackendError: nothing can listen there.
    """

    panel_width = 0
    """of the picture: the browser's panel stands beside it"""
    in_browser = True

    def __init__(self, width: int, height: int, *, port: int = 0, host: str | None = None) -> None:
        self.size = (width, height)
        self.closed, self.reason = False, ""
        self._token = secrets.token_urlsafe(18)
        self._changed = threading.Condition()
        self._clients: set[_Client] = set()
        self._inbox: list[dict] = []
        self._cpu = 0.0
        self._seq = self._picture_seq = 0
        self._picture = self._panel = b""
        self._left_at = float("-inf")
        self._server = _listening(host or LOCAL, port)
        self._server.link = self
        self._server.page = live_page().encode()
        self._server.names = _names(host)
        self.address = f"http://{_shown(host)}:{self._server.server_port}/{self._token}/"
        threading.Thread(target=self._server.serve_forever, name="preview server", daemon=True).start()

    # -- the trainer's side ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a browser has been sent everything that there is, so that something new would be seen."""
        with self._changed:
            return not self.closed and any(client.seq == self._seq for client in self._clients)

    @property
    def watched(self) -> bool:
        """Whether anyone is looking, or was just now."""
        with self._changed:
            return bool(self._clients) or time.perf_counter() - self._left_at < GRACE_SECONDS

    def send(self, picture: np.ndarray | None, panel: list[list], *, share: float) -> None:
        """Shows a picture ((h, w, 3) uint8; None keeps the last) and the panel's rows. ``share`` is the window's."""
        jpeg = _jpeg(picture) if picture is not None else None
        rows = json.dumps(panel).encode()
        with self._changed:
            self._seq += 1
            self._panel = rows
            if jpeg is not None:
                self._picture, self._picture_seq = jpeg, self._seq
            self._changed.notify_all()

    def receive(self) -> list[dict]:
        """What browsers' users did since the last call, oldest first."""
        with self._changed:
            inbox, self._inbox = self._inbox, []
            cpu, self._cpu = self._cpu, 0.0
        if inbox:
            self.size = tuple(inbox[-1]["size"])
            inbox[-1]["cpu"] = cpu
        return inbox

    def close(self, reason: str = "") -> None:
        """Tells browsers that this is the end, and listens no more. Calling it again does nothing."""
        if self.closed:
            return
        with self._changed:
            self.closed, self.reason = True, reason
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    # -- the browsers' side, in threads of their own -----------------------------------------------------------------

    def knows(self, path: str) -> str | None:
        """What a path asks for beyond the token; None without the token."""
        _, _, below = path.partition("/")
        token, _, rest = below.partition("/")
        return rest if hmac.compare_digest(token.encode(), self._token.encode()) else None

    def take(self, news: list[dict]) -> None:
        """Notes checked reports."""
        with self._changed:
            self._inbox = (self._inbox + news)[-MOST_WAITING:]

    def spent(self, seconds: float) -> None:
        """Notes time that a browser has cost the processor."""
        with self._changed:
            self._cpu += seconds

    def watch(self, write) -> None:
        """Sends a browser what there is, and what comes, until it goes (``OSError``) or the end; ``write`` sends bytes.

        A browser that is slow is sent the latest only.
        """
        client = _Client()
        with self._changed:
            if len(self._clients) >= MOST_CLIENTS:
                raise OSError("there are browsers enough")
            self._clients.add(client)
        try:
            while True:
                with self._changed:
                    news = self._changed.wait_for(lambda: self.closed or client.seq != self._seq, BEAT_SECONDS)
                    ended, seq, panel = self.closed, self._seq, self._panel
                    picture = self._picture if client.picture != self._picture_seq else b""
                    picture_seq = self._picture_seq
                began = time.thread_time()
                if ended:
                    write(_framed(END, self.reason.encode()))
                    return
                parts = [(PANEL, panel), (PICTURE, picture)] if news else []
                write(b"".join(_framed(kind, part) for kind, part in parts if part) or _framed(BEAT, b""))
                self.spent(time.thread_time() - began)
                client.seq, client.picture = seq, picture_seq
        finally:
            with self._changed:
                self._clients.discard(client)
                if not self._clients:
                    self._left_at = time.perf_counter()


def _framed(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(kind, len(payload)) + payload


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def _listening(host: str, port: int) -> "_Server":
    """A server at the port, or at the first that is free of some."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in [port] if port else range(PORT, PORT + TRIES):
        try:
            return _Server((host, tried), family)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or str(error)
    where = port or f"{PORT} to {PORT + TRIES - 1}"
    raise BackendError(f"cannot serve the preview on {host}, port {where}: {problem}; choose another: --serve PORT")


def _shown(host: str | None) -> str:
    """The host of the address that is printed."""
    if host is None:
        return LOCAL
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _names(host: str | None) -> set[str]:
    """Names under which requests are accepted: this machine's own, and what it was asked to listen on."""
    return {"localhost", LOCAL, "::1"} | ({host.lower(), socket.gethostname().lower()} if host else set())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    link: ServerLink
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
        return len(self.names) > len(_names(None))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
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
