"""The window, in a process of its own: shows pictures that it is given and reports what the user does.

It knows nothing of fields or training. A crash, a dead display or the window library's ``exit`` ends this process
only. Run by ``link``: one JSON object a line in each direction, pictures through a file both sides map.

In:  {"seq": n, "frame": [slot, width, height] or null, "panel": [row, ...], "share": of time}
Out: {"ready": true}, then {"seen": n} for each message, and {"input": {...}} whenever the user did something:
     "size" [w, h], "cursor" [x, y] (fractions from the top left), "buttons" and "held" (what is down), "pressed" (keys
     that went down since the last report), "panel" {name: value} (widgets that changed), "cpu" seconds since the last,
     "dt" seconds since the last.
A panel row is ["text", s], ["button", name, label], ["check", name, label, value] or
["slider", name, label, value, low, high].
"""

import json
import os
import queue
import shutil
import sys
import threading
import time

import numpy as np

KEYS = tuple("abcdefghijklmnopqrstuvwxyz") + (" ", "Left", "Right", "Up", "Down", "Shift", "Control", "Tab", "Escape")
BUTTONS = ("LMB", "MMB", "RMB")
SLOTS = 2
BUSY_SECONDS = 1 / 40
"""Seconds between two looks at the mouse while the user is doing something."""
QUIET_SHARE = 0.05
"""Share of time that an idle window takes, until it is told otherwise."""
AWAKE_SECONDS = 1.0
"""Seconds after the last movement in which the window stays alert."""


def main(folder: str, width: int, height: int, title: str, panel_width: int) -> None:
    """Opens the window and serves until it or standard input closes."""
    os.chdir(folder)  # imgui.ini is written to the current folder
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Taichi prints must not mix with the messages
    messages: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(messages,), daemon=True).start()
    import taichi as ti

    ti.init(arch=ti.cpu, log_level=ti.ERROR, cpu_max_num_threads=1)
    window = ti.ui.Window(title, (width, height), vsync=False, pos=(60, 60))
    try:
        _Server(window, messages, out, panel_width / width).serve()
    except BrokenPipeError:
        pass  # the other side is gone, and a report noticed it before the end of input was read
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the other side may have been killed before it could
    os._exit(0)  # tearing the window library down is where drivers crash


def _read_lines(messages: queue.SimpleQueue) -> None:
    for line in sys.stdin:
        messages.put(line)
    messages.put(None)


class _Server:
    """The loop: take messages, draw, report."""

    def __init__(self, window, messages: queue.SimpleQueue, out, panel_share: float) -> None:
        self.window, self.messages, self.out = window, messages, out
        self.canvas, self.gui = window.get_canvas(), window.get_gui()
        self.panel_share, self.share = panel_share, QUIET_SHARE
        self.picture = np.zeros((8, 8, 3), np.uint8)
        self.panel: list[list] = []
        self.last: tuple = ()
        self.awake_until = time.perf_counter() + AWAKE_SECONDS
        self.cpu, self.reported = time.process_time(), time.perf_counter()
        self.owed: dict = {"pressed": [], "panel": {}}

    def serve(self) -> None:
        """Until the window is closed or the other side is gone."""
        self._draw()
        self._send({"ready": True})
        while self.window.running:
            began = time.perf_counter()
            if not self._receive():
                return
            self._draw()
            self._report()
            self._sleep(began)

    def _send(self, message: dict) -> None:
        self.out.write(json.dumps(message) + "\n")

    def _receive(self) -> bool:
        """Takes over everything that has arrived; False at the end of input."""
        while not self.messages.empty():
            line = self.messages.get()
            if line is None or not line.endswith("\n"):  # the other side was killed, perhaps within a line
                return False
            message = json.loads(line)
            if message["frame"] is not None:
                slot, width, height = message["frame"]
                picture = np.memmap(f"frame{slot}", np.uint8, "r", shape=(height, width, 3))
                self.picture = np.ascontiguousarray(picture[::-1].swapaxes(0, 1))  # [x, y], y up
            # A widget that the user moved meanwhile keeps the user's value until the other side has heard of it.
            self.panel = [self._merge(row) for row in message["panel"]]
            self.share = message["share"]
            self._send({"seen": message["seq"]})
        return True

    def _merge(self, row: list) -> list:
        return [*row[:3], self.owed["panel"][row[1]], *row[4:]] if row[1] in self.owed["panel"] else row

    def _draw(self) -> None:
        self.canvas.set_image(self.picture)
        if self.panel:
            self.gui.begin("tslim", 0.0, 0.0, self.panel_share, 1.0)
            for row in self.panel:
                self._widget(row)
            self.gui.end()
        self.window.show()

    def _widget(self, row: list) -> None:
        kind = row[0]
        if kind == "text":
            self.gui.text(row[1])
            return
        name, label = row[1], row[2]
        if kind == "button":
            if self.gui.button(label):
                self.owed["panel"][name] = True
            return
        value = row[3]
        if kind == "check":
            now = self.gui.checkbox(label, value)
        else:
            now = self.gui.slider_int(label, value, row[4], row[5])
        if now != value:
            row[3] = now
            self.owed["panel"][name] = now

    def _report(self) -> None:
        """Tells the other side what has changed since the last time."""
        x, y = self.window.get_cursor_pos()
        self.owed["pressed"] += [e.key for e in self.window.get_events("Press") if e.key in KEYS]
        self.window.get_events("Release")  # or they would pile up
        if "Escape" in self.owed["pressed"]:
            self.window.running = False
        buttons = [b for b in BUTTONS if self.window.is_pressed(b)]
        held = [k for k in KEYS if self.window.is_pressed(k)]
        state = (tuple(self.window.get_window_shape()), round(x, 5), round(1 - y, 5), tuple(buttons), tuple(held))
        busy = state != self.last or bool(self.owed["pressed"] or self.owed["panel"] or held)
        now = time.perf_counter()
        if busy:
            self.awake_until = now + AWAKE_SECONDS
        if not busy and now - self.reported < 0.5:
            return
        cpu = time.process_time()
        self._send(
            {
                "input": {
                    "size": list(state[0]),
                    "cursor": [state[1], state[2]],
                    "buttons": buttons,
                    "held": held,
                    "pressed": self.owed["pressed"],
                    "panel": self.owed["panel"],
                    "cpu": cpu - self.cpu,
                    "dt": now - self.reported,
                }
            }
        )
        self.owed = {"pressed": [], "panel": {}}
        self.last, self.cpu, self.reported = state, cpu, now

    def _sleep(self, began: float) -> None:
        """Sleeps until the next look: soon while the user is active, else as the time budget allows."""
        cost = time.perf_counter() - began
        alert = self.share >= 1 or time.perf_counter() < self.awake_until
        wait = BUSY_SECONDS - cost if alert else max(BUSY_SECONDS, cost / max(self.share, 1e-3))
        time.sleep(min(max(wait, 0.001), 0.5))
