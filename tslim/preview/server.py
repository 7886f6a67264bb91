"""The preview in a browser: a small web server that stands where the window's process does (see ``link``).

It is on the standard library. viser, which nerfstudio and gsplat users know, would bring six packages (and an older
rich than ours), and with its client a camera, panels and plots of its own: another preview beside this one. Here the
browser shows the very pictures and the very panel that the window shows, and reports the same mouse and keys; what it
costs is one JPEG a picture (some 10 ms for 1280 x 800), made in the trainer's turn and so within its share of time.
Either way a picture goes over one connection that stays open, so that the latency is the network's. Who may use it is
decided in ``http_server``.
"""

import hmac
import io
import json
import secrets
import struct
import threading
import time

import numpy as np

from tslim.preview.http_server import address_of, listening, names_of
from tslim.web.live import live_page

MOST_CLIENTS = 8
MOST_WAITING = 512
"""Most reports that wait for the trainer; beyond, the oldest are lost."""
GRACE_SECONDS = 10.0
"""Seconds in which a browser that has gone may come back before it counts as gone."""
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
        port: where to listen; ``http_server.PORT`` or one of the next if 0.
        host: address of this machine to listen at, so that other machines can connect; None for this machine alone.

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
        self._server = listening(host, port)
        self._server.link = self
        self._server.page = live_page().encode()
        self._server.names = names_of(host)
        self.address = f"http://{address_of(host)}:{self._server.server_port}/{self._token}/"
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
