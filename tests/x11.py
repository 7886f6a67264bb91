"""A virtual screen with real input events, for tests of the window: Xvfb, xdotool, screenshots.

Screenshots are read from the X server's frame buffer file (XWD), so that they show what a user would see.
"""

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np


def missing() -> str | None:
    """What this machine lacks, or ``None``."""
    from tslim.device import hardware

    lacking = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
    if hardware.vulkan_loader() is None:
        lacking.append("the Vulkan loader")
    else:
        try:
            hardware.ask("vulkan_devices")
        except RuntimeError as error:
            lacking.append(str(error))
    return ", ".join(lacking) or None


class Screen:
    """A virtual screen of ``width`` x ``height``; a context manager. ``display`` is what DISPLAY must be."""

    def __init__(self, folder: Path, width: int = 1024, height: int = 700) -> None:
        self.folder = folder
        read, write = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{width}x{height}x24", "-fbdir", str(folder)],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as numbers:
            self.display = f":{numbers.readline().strip()}"

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *failure) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the X server, as when a user's session ends."""
        self._server.terminate()
        self._server.wait(timeout=10)

    def do(self, *words: object) -> str:
        """One xdotool command line."""
        done = subprocess.run(
            ["xdotool", *map(str, words)],
            env={**os.environ, "DISPLAY": self.display},
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout.strip()

    def wait_for_window(self, name: str, seconds: float = 60.0) -> tuple[int, int]:
        """Waits until a window of this name is there and gives it the keyboard; returns its left top corner."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            found = self.do("search", "--name", name).split()
            if found:
                self.do("windowfocus", found[-1])
                facts = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", found[-1]).split())
                return int(facts["X"]), int(facts["Y"])
            time.sleep(0.1)
        raise AssertionError(f"no window called {name} within {seconds:.0f} s")

    def drag(self, start: tuple[int, int], end: tuple[int, int], *, button: int = 1) -> None:
        """Presses at ``start``, moves to ``end`` in steps, releases."""
        self.do("mousemove", *start)
        time.sleep(0.7)  # a window that was idle looks at the mouse twice a second
        self.do("mousedown", button)
        for i in range(1, 9):
            self.do("mousemove", *(round(a + (b - a) * i / 8) for a, b in zip(start, end, strict=True)))
            time.sleep(0.06)
        time.sleep(0.2)
        self.do("mouseup", button)

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        self.do("mousemove_relative", "--", 1, 0)
        time.sleep(0.6)
        self.do("key", key)

    def shot(self) -> np.ndarray:
        """The whole screen, (h, w, 3) uint8."""
        raw = (self.folder / "Xvfb_screen0").read_bytes()
        header = struct.unpack(">25I", raw[:100])
        header_size, width, height = header[0], header[4], header[5]
        bytes_per_line, n_colours = header[12], header[19]
        start = header_size + 12 * n_colours
        rows = np.frombuffer(raw, np.uint8, height * bytes_per_line, start).reshape(height, bytes_per_line)
        return rows[:, : 4 * width].reshape(height, width, 4)[..., 2::-1].copy()
