"""The preview's window on a virtual screen, driven by real mouse and keyboard events.

Needs Xvfb, xdotool and a Vulkan driver (Debian: xvfb xdotool mesa-vulkan-drivers); skips where they are missing.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests import x11

pytestmark = [pytest.mark.slow]
STEPS = 100_000


class Driver:
    """A training process with a preview; ``now`` is the last thing it said."""

    def __init__(self, root, folder, display: str, steps: int = STEPS, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(root / "tests" / "preview_driver.py"), str(steps), str(folder)],
            env={**os.environ, "DISPLAY": display, "PYTHONPATH": str(root), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        self.lines: queue.SimpleQueue = queue.SimpleQueue()
        self.now: dict = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def update(self) -> dict:
        while not self.lines.empty():
            fact = self.lines.get()
            if fact is None:
                raise AssertionError(f"the training ended: {self.process.stderr.read()[-2000:]}")
            self.now = fact
        return self.now

    def until(self, condition, seconds: float = 60.0) -> dict:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            if self.update() and condition(self.now):
                return self.now
            time.sleep(0.05)
        raise AssertionError(f"did not happen within {seconds:.0f} s; last: {self.now}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture
def stage(root, tmp_path):
    """A screen with a training on it: (screen, driver, folder for its files, corner of the window)."""
    lacking = x11.missing()
    if lacking:
        pytest.skip(f"no virtual screen: {lacking}")
    (tmp_path / "screen").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "tmp").mkdir()
    with x11.Screen(tmp_path / "screen") as screen:
        driver = Driver(root, tmp_path / "run", screen.display, TMPDIR=str(tmp_path / "tmp"))
        try:
            corner = screen.wait_for_window("^tslim$")
            driver.until(lambda now: now["picture"] is not None)
            time.sleep(1)
            yield screen, driver, tmp_path / "run", corner
        finally:
            driver.stop()


def blue_grab(picture: np.ndarray) -> tuple[int, int]:
    """Middle of the topmost slider's handle in a screenshot, (x, y)."""
    near = np.abs(picture.astype(int) - (61, 133, 224)).max(2) < 12
    rows, columns = np.nonzero(near)
    assert len(rows), "no slider in sight"
    top = rows < rows.min() + 14
    return int(columns[top].mean()), int(rows[top].mean())


def test_a_user_orbits_slides_pauses_compares_saves_and_closes_while_training_goes_on(stage):
    screen, driver, folder, (left, top) = stage
    picture = screen.shot()
    area = picture[top + 60 : top + 400, left + 320 : left + 860]
    assert area.mean() > 60, "there is a picture in the window, not its dark backdrop"

    before = driver.update()
    assert before["on_view"] and before["psnr"] is not None and before["follow"]
    screen.drag((left + 600, top + 250), (left + 700, top + 280))
    after = driver.until(lambda now: now["eye"] != before["eye"])
    assert not after["on_view"] and after["rank"] == before["rank"], "orbiting changed the camera and nothing else"

    screen.press("r")
    driver.until(lambda now: now["eye"] == before["eye"])
    screen.press("Left")
    driver.until(lambda now: now["on_view"])

    grab = blue_grab(screen.shot())
    screen.drag(grab, (grab[0] - 130, grab[1]))
    after = driver.until(lambda now: now["rank"] == 1)
    assert not after["follow"] and after["on_view"], "the slider moved the rank, not the camera"

    screen.press("t")
    time.sleep(1.0)
    step = driver.update()["step"]
    time.sleep(1.5)
    assert driver.update()["step"] == step, "training is paused"
    screen.press("t")
    driver.until(lambda now: now["step"] > step)

    plain = screen.shot()
    screen.press("g")
    driver.until(lambda now: now["compare"])
    deadline = time.perf_counter() + 20  # a busy machine may take its time to draw it
    while np.abs(screen.shot().astype(int) - plain).mean() <= 3:
        assert time.perf_counter() < deadline, "side by side looks different"
        time.sleep(0.5)

    screen.press("x")
    screen.press("v")
    until_files(folder, ["snapshot-step*.png", "step*-rank1.slim"])
    assert not (folder / "imgui.ini").exists(), "nothing else is left in the user's folder"

    screen.press("Escape")
    closed = driver.until(lambda now: not now["open"])
    driver.until(lambda now: now["step"] > closed["step"] + 3)
    assert not any("window" in n for n in driver.now["notices"]), "the user knows that the window was closed"
    assert not list((folder.parent / "tmp").iterdir()), "nothing is left of the window"


def until_files(folder, patterns: list[str]) -> None:
    deadline = time.perf_counter() + 30
    while not all(list(folder.glob(p)) for p in patterns):
        assert time.perf_counter() < deadline, sorted(p.name for p in folder.iterdir())
        time.sleep(0.1)


def test_a_training_that_is_killed_takes_its_window_and_its_files_along(stage):
    screen, driver, folder, corner = stage
    assert list((folder.parent / "tmp").iterdir())
    driver.stop()
    deadline = time.perf_counter() + 30
    while screen.do("search", "--name", "^tslim$") or list((folder.parent / "tmp").iterdir()):
        assert time.perf_counter() < deadline
        time.sleep(0.1)


def test_the_end_of_the_x_server_does_not_take_the_training_with_it(stage):
    screen, driver, folder, corner = stage
    screen.stop()
    gone = driver.until(lambda now: not now["open"])
    driver.until(lambda now: now["step"] > gone["step"] + 3)
    assert any("training goes on, and preview.png is written" in n for n in driver.now["notices"])
    until_files(folder, ["preview.png"])


def test_the_end_of_training_leaves_the_window_open_until_the_user_closes_it(root, tmp_path):
    lacking = x11.missing()
    if lacking:
        pytest.skip(f"no virtual screen: {lacking}")
    (tmp_path / "screen").mkdir()
    with x11.Screen(tmp_path / "screen") as screen:
        driver = Driver(root, tmp_path, screen.display, steps=5)
        try:
            screen.wait_for_window("^tslim$")
            driver.until(lambda now: now["finished"])
            time.sleep(2)
            assert not driver.update()["left"] and driver.process.poll() is None
            screen.press("Escape")
            driver.until(lambda now: now["left"])
        finally:
            driver.stop()


def trained_without_window(root, folder, display: str, **env: str) -> str:
    """The one notice of a training that found no window; checks the picture that took its place."""
    from PIL import Image

    driver = Driver(root, folder, display, steps=30, **env)
    try:
        driver.until(lambda now: now["left"], seconds=120)
    finally:
        driver.stop()
    picture = np.asarray(Image.open(folder / "preview.png"))
    assert picture.shape == (800, 1280, 3) and picture[100:600, 310:].std() > 10
    assert [p.name for p in folder.iterdir()] == ["preview.png"]
    (notice,) = driver.now["notices"]
    return notice


def test_without_a_display_training_goes_on_and_writes_preview_png(root, tmp_path):
    assert trained_without_window(root, tmp_path, "") == (
        "no preview window: no display (DISPLAY is not set); look in a browser instead with --serve; "
        "for a window over ssh, connect with ssh -X; preview.png is written in the run folder instead"
    )


def test_without_a_vulkan_driver_training_goes_on_and_writes_preview_png(root, tmp_path):
    lacking = x11.missing()
    if lacking:
        pytest.skip(f"no virtual screen: {lacking}")
    (tmp_path / "screen").mkdir()
    (tmp_path / "run").mkdir()
    with x11.Screen(tmp_path / "screen") as screen:
        none = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}
        notice = trained_without_window(root, tmp_path / "run", screen.display, **none)
    assert notice == (
        "no preview window: no Vulkan driver; install mesa-vulkan-drivers (or your GPU's driver); "
        "preview.png is written in the run folder instead"
    )
