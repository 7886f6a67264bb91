"""Whether a window can open here, found out in a subprocess, since the attempt may end it. Standard library only.

Without a display, the window library ends the process from C (no exception to catch); so does a crashing driver. The
answer is therefore got by opening a tiny window in a subprocess.
"""

import os
import sys
import tempfile
from dataclasses import dataclass

from tslim.device import hardware

_OPEN = """
import os
os.chdir({folder!r})  # imgui.ini is written to the current folder
import taichi as ti
ti.init(arch=ti.cpu, log_level=ti.ERROR)
window = ti.ui.Window("can a window open?", (64, 64), vsync=False)
window.get_canvas().set_background_color((0, 0, 0))
window.show()
print("window:open")
"""


@dataclass(frozen=True)
class NoWindow:
    """Why no window can open, and what would help."""

    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


def why_no_window(*, timeout: float = 30.0) -> NoWindow | None:
    """``None`` if a window opens here; takes about a second."""
    known = _obvious_reason()
    if known is not None:
        return known
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = hardware.run_python(_OPEN.format(folder=folder), timeout=timeout)
        except RuntimeError as error:
            return NoWindow(f"opening a window: {error}", "the graphics driver hangs: update or restart it")
    if done.returncode == 0 and "window:open" in done.stdout:
        return None
    return _explain(done.stdout + "\n" + done.stderr, hardware.last_line(done))


def _obvious_reason() -> NoWindow | None:
    """What can be told without a subprocess."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        advice = "look in a browser instead with --serve; for a window over ssh, connect with ssh -X"
        if os.environ.get("WAYLAND_DISPLAY"):
            advice = "the window needs X11: install xwayland"
        return NoWindow("no display (DISPLAY is not set)", advice)
    if hardware.vulkan_loader() is None:
        return NoWindow("no Vulkan loader", "install libvulkan1 and mesa-vulkan-drivers (or your GPU's driver)")
    return None


def _explain(message: str, last: str) -> NoWindow:
    """What the failed attempt's output means."""
    if "initialize GLFW" in message:
        return NoWindow(
            f"the display {os.environ.get('DISPLAY', '')} does not answer",
            "check DISPLAY and who may use it (xhost), or look in a browser instead with --serve",
        )
    if "libX11" in message:
        return NoWindow("no X11 client library", "install libx11-6")
    if "Vulkan must be available" in message or "Vulkan instance" in message:
        return NoWindow("no Vulkan driver", "install mesa-vulkan-drivers (or your GPU's driver)")
    if "No module named 'taichi'" in message:
        return NoWindow("Taichi is not installed", "pip install -r requirements.txt")
    return NoWindow(f"the window system failed: {last}", "run python -m tslim doctor for details")
