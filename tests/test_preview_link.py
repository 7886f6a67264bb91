"""The window's process may die, hang or talk nonsense: the training must not notice."""

import time

import numpy as np
import pytest

from tslim.preview import link as preview_link
from tslim.preview.link import WindowLink


def link_to(program: str) -> WindowLink:
    """A link whose other end runs this program instead of a window."""

    class Fake(WindowLink):
        @staticmethod
        def _program(arguments: tuple) -> str:
            return f"import json, sys, time\n{program}"

    return Fake(640, 480, title="test", panel_width=100)


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < deadline, "did not happen in time"
        time.sleep(0.01)


def closed(link: WindowLink) -> bool:
    link.receive()
    return link.closed


ECHO = """
for line in sys.stdin:
    message = json.loads(line)
    print(json.dumps({"seen": message["seq"]}), flush=True)
    print(json.dumps({"input": {"size": [320, 200], "told": message, "raw": open(FOLDER + "/frame1", "rb").read(3).hex()
        if message["frame"] else ""}}), flush=True)
"""


def test_pictures_and_panel_arrive_and_reports_come_back():
    link = link_to("")
    link.close()
    link = link_to("FOLDER = sys.stdin.readline().strip()\n" + ECHO)
    link._process.stdin.write(f"{link.folder}\n")
    picture = np.full((4, 6, 3), 7, np.uint8)
    link.send(picture, [["text", "hello"]], share=0.05)
    assert not link.ready, "one message at a time"
    reports: list[dict] = []
    until(lambda: reports.extend(link.receive()) or reports)
    assert reports[0]["told"] == {"seq": 1, "frame": [1, 6, 4], "panel": [["text", "hello"]], "share": 0.05}
    assert reports[0]["raw"] == "070707" and link.size == (320, 200) and link.ready
    folder = link.folder
    link.close()
    link.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    "program, reason",
    [
        ("sys.exit(0)", ""),
        ("print('[Taichi] hello'); print('cannot open the display', file=sys.stderr); sys.exit(1)", "cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the window process ended"),
    ],
)
def test_a_window_process_that_ends_is_noticed_with_its_reason(program, reason):
    link = link_to(program)
    until(lambda: closed(link))
    assert reason in link.reason and bool(link.reason) == bool(reason)
    link.send(np.zeros((4, 4, 3), np.uint8), [], share=0.05)
    assert link.receive() == []


def test_a_window_process_that_hangs_never_blocks_and_is_given_up(monkeypatch):
    monkeypatch.setattr(preview_link, "SILENCE_SECONDS", 0.5)
    link = link_to("time.sleep(60)")
    picture = np.zeros((800, 1280, 3), np.uint8)
    began = time.perf_counter()
    for _ in range(100):
        link.send(picture, [["text", "x" * 1000]] * 30, share=0.05)
    assert time.perf_counter() - began < 20, "the process that hangs would take 60 s"
    until(lambda: closed(link))
    assert "not answered" in link.reason
    assert link._process.poll() is not None, "the process must not stay behind"


def test_half_a_line_from_a_dying_process_is_passed_over():
    link = link_to("sys.stdout.write('{\"seen\": ')\nsys.stdout.flush()\nsys.exit(3)")
    until(lambda: closed(link))
    assert link.reason == "the window process ended (exit code 3)"
