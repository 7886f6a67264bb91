"""The trainer's end of the line to the window process. Nothing here can block or fail the training.

Standard library and numpy only; see ``window`` for the messages.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np

from tslim.device import cache
from tslim.preview.window import SLOTS

SILENCE_SECONDS = 20.0
"""A window that does not answer for so long is given up."""


class Link(Protocol):
    """What ``Preview`` needs of what it is shown in: a window's process, or a server for browsers."""

    size: tuple[int, int]
    """of the picture that is wanted, the panel's part included"""
    panel_width: int
    """of the picture, which the panel lies over"""
    in_browser: bool
    closed: bool
    reason: str
    """why it is closed; empty if that was wanted"""

    @property
    def ready(self) -> bool:
        """Whether more may be sent, since what was sent has been seen."""

    @property
    def watched(self) -> bool:
        """Whether there is anyone to wait for."""

    def send(self, picture: np.ndarray | None, panel: list[list], *, share: float) -> None:
        """Shows a picture ((h, w, 3) uint8; None keeps the last) and the panel's rows. Only when ``ready``."""

    def receive(self) -> list[dict]:
        """What the user did since the last call, oldest first; see ``window``."""

    def close(self, reason: str = "") -> None:
        """Ends it."""


class WindowLink:
    """A window in another process. ``closed`` says whether it is gone, ``reason`` why (empty if the user closed it)."""

    in_browser = False

    def __init__(self, width: int, height: int, *, title: str, panel_width: int) -> None:
        """Starts the window process; it is usable at once, and shows what is sent when it is up."""
        self.folder = Path(tempfile.mkdtemp(prefix="tslim-preview-"))
        self.size = (width, height)
        self.panel_width = panel_width
        self.closed, self.reason = False, ""
        self._seq = self._seen = 0
        self._sent_at = time.perf_counter()
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._log = open(self.folder / "log", "w+")  # noqa: SIM115 (closed in close)
        cache.prepare()
        arguments = (str(self.folder), width, height, title, panel_width)
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._program(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the trainer
        )
        self._stdin, self._stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        threading.Thread(target=self._read, daemon=True).start()

    @staticmethod
    def _program(arguments: tuple) -> str:
        """What the window process runs, with this one's ``sys.path``."""
        return (
            f"import sys; sys.path[:] = {[p or os.getcwd() for p in sys.path]!r}\n"
            f"from tslim.preview import window\nwindow.main(*{arguments!r})"
        )

    def _read(self) -> None:
        for line in self._stdout:
            self._inbox.put(line)
        self._inbox.put(None)

    @property
    def ready(self) -> bool:
        """Whether the window has seen everything that was sent, so that more may be sent."""
        return not self.closed and self._seen == self._seq

    @property
    def watched(self) -> bool:
        """Whether the window is there."""
        return not self.closed

    def send(self, picture: np.ndarray | None, panel: list[list], *, share: float) -> None:
        """Shows a picture ((h, w, 3) uint8; None keeps the last) and the panel's rows. Only when ``ready``.

        ``share`` of the time is what the window's process may take while the user does nothing.
        """
        if not self.ready:
            return
        self._seq += 1
        frame = None
        try:  # a window that has just been closed took the folder along
            if picture is not None:
                slot = self._seq % SLOTS
                height, width = picture.shape[:2]
                (self.folder / f"frame{slot}").write_bytes(np.ascontiguousarray(picture).tobytes())
                frame = [slot, width, height]
            message = {"seq": self._seq, "frame": frame, "panel": panel, "share": share}
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
        except (OSError, ValueError):
            self._process_ended()
        self._sent_at = time.perf_counter()

    def receive(self) -> list[dict]:
        """The user's doings since the last call, oldest first."""
        inputs = []
        while not self.closed and not self._inbox.empty():
            line = self._inbox.get()
            if line is None:
                self._process_ended()
                break
            try:
                message = json.loads(line)
            except ValueError:  # a process that dies may leave half a line
                continue
            self._seen = message.get("seen", self._seen)
            if "input" in message:
                inputs.append(message["input"])
                self.size = tuple(message["input"]["size"])
        if not self.closed and not self.ready and time.perf_counter() - self._sent_at > SILENCE_SECONDS:
            self.close(f"the window has not answered for {SILENCE_SECONDS:.0f} s")
        return inputs

    def _process_ended(self) -> None:
        """The process is gone: by the user's wish (exit code 0) or not."""
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.close("the window process hangs")
            return
        if code == 0:
            self.close("")
            return
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        self.close(f"the window process ended ({lines[-1] if lines else f'exit code {code}'})")

    def close(self, reason: str = "") -> None:
        """Ends the window process. Calling it again does nothing."""
        if self.closed:
            return
        self.closed, self.reason = True, reason
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=5)
        for stream in (self._stdin, self._log):
            try:
                stream.close()
            except OSError:
                pass
        shutil.rmtree(self.folder, ignore_errors=True)
