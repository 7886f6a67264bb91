"""The preview in a real browser, of a training in a process of its own."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import browser
from tests.browser import Tab, needs_browser

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [needs_browser, pytest.mark.slow]
PATIENCE = 120.0


class Training:
    """A training that is served; ``facts`` are the last that it told."""

    def __init__(self, folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "serve_driver.py"), "100000", str(folder)],
            stdout=subprocess.PIPE, text=True, env=env, cwd=folder,
        )  # fmt: skip
        self.told: queue.SimpleQueue = queue.SimpleQueue()
        self.facts: dict = {}
        threading.Thread(target=self._read, daemon=True).start()
        self.until("address")
        self.address = self.facts["address"]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.told.put(json.loads(line))

    def until(self, condition) -> None:
        """Waits until the facts fulfil a condition, or have a name."""
        deadline = time.monotonic() + PATIENCE
        holds = condition if callable(condition) else lambda facts: condition in facts
        while not holds(self.facts):
            self.facts = self.told.get(timeout=max(deadline - time.monotonic(), 0.01))

    def goes_on(self) -> None:
        """Waits for steps to come that are not there yet."""
        while not self.told.empty():
            self.facts = self.told.get()
        now = self.facts["step"]
        self.until(lambda facts: facts["step"] > now + 3)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def training(tmp_path) -> Iterator[Training]:
    started = Training(tmp_path)
    yield started
    started.close()


def sees_picture(tab: Tab) -> None:
    tab.until("document.getElementById('state').hidden")


def test_two_browsers_one_of_which_goes(training, tmp_path):
    with browser.chromium() as chromium:
        first = Tab(chromium, training.address, size=(800, 420), wait=False)
        sees_picture(first)
        second = Tab(chromium, training.address, size=(800, 400), wait=False)
        sees_picture(second)
        assert first.run("document.querySelectorAll('#panel input[type=range]').length") == 3
        first.until("document.getElementById('panel').innerText.includes('loss')")
        text = first.page.inner_text("#panel")
        for word in ("MB as float16", "PSNR", "training: step", "rays/s", "% of time"):
            assert word in text, word
        # The slider.
        first.page.fill("#panel input[name=rank]", "2")
        training.until(lambda facts: facts.get("rank") == 2)
        second.until("document.getElementById('panel').innerText.includes('rank 2 of')")
        # Side by side, by a key of the other browser.
        second.page.keyboard.press("g")
        training.until(lambda facts: facts["compare"])
        # The one that did this goes away, in the middle of a drag.
        box = second.page.locator("#canvas").bounding_box()
        second.page.mouse.move(box["x"] + 200, box["y"] + 200)
        second.page.mouse.down()
        second.page.mouse.move(box["x"] + 260, box["y"] + 220)
        training.until(lambda facts: not facts["compare"])
        second.close()
        training.goes_on()
        eye, distance = training.facts["eye"], training.facts["distance"]
        # The other can still move, zoom, save and pause.
        first.page.mouse.move(300, 300)
        first.page.mouse.down()
        first.page.mouse.move(380, 320)
        first.page.mouse.up()
        training.until(lambda facts: facts["eye"] != eye)
        first.page.mouse.wheel(0, -300)
        training.until(lambda facts: facts["distance"] < 0.9 * distance)
        first.page.click("text=snapshot")
        first.page.click("text=save rank")
        training.until(lambda facts: len(facts["notices"]) >= 3)
        kinds = sorted(path.suffix for path in tmp_path.iterdir())
        assert ".png" in kinds and ".slim" in kinds
        first.page.click("text=pause training")
        first.until("document.getElementById('panel').innerText.includes('paused: step')")
        # It pauses and goes: the training goes on by itself.
        first.close()
        training.goes_on()
        assert first.complaints == []


def test_on_a_phone_and_to_the_end(training):
    with browser.chromium() as chromium:
        phone = Tab(chromium, training.address, size=(390, 700), wait=False, has_touch=True, is_mobile=True)
        sees_picture(phone)
        training.until(lambda facts: (facts.get("size") or [0])[0] == 390)
        phone.page.click("text=go on without the preview")
        phone.until("document.getElementById('state').textContent.includes('has ended')")
        training.goes_on()
        assert phone.complaints == []
        phone.close()
