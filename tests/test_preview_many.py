"""The preview is opened and closed fifty times in one process, which holds no more memory, handles, threads, children
or files than after the first few."""

import json

import pytest

from tests import damage, x11

pytestmark = [pytest.mark.slow]
TIMES = 50

PREAMBLE = """
import gc, json, os, socket, sys, tempfile, threading, time
import numpy as np
import tslim
from tslim.training import events

where, times, preview_of = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ["TMPDIR"] = tempfile.tempdir = where
tslim.init("cpu")
scene = tslim.builtin_scene(size=24, train=3, test=2)
field = tslim.Trainer.new_field(scene, tslim.presets.tiny())

def held():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    names = [thread.name for thread in threading.enumerate()]
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"), "handles": len(os.listdir("/proc/self/fd")),
        "threads": len(names), "children": len(children), "files": len(os.listdir(where)),
    }

def pump(preview, until):
    step, deadline = 0, time.monotonic() + 120
    preview.show(events.Started(0, 10**6, {}, field=field, scene=scene))
    while not until():
        assert time.monotonic() < deadline, (preview.notices, preview.failure)
        step += 1
        preview.show(events.Stepped(step, 4))
        time.sleep(0.005)

def once_served():
    with tslim.Preview.serve(share=1.0) as preview:
        address = preview.notices[0].rpartition("http://")[2]
        host, token = address.split("/")[:2]
        browser = socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=60)
        browser.sendall(f"GET /{token}/stream HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
        browser.settimeout(0)
        came = bytearray()
        def has_a_picture():
            try:
                came.extend(browser.recv(1 << 20))
            except BlockingIOError:
                pass
            return b"\\x89PNG" in came or b"\\xff\\xd8\\xff" in came
        pump(preview, has_a_picture)
        browser.close()

def once_in_a_window():
    with tslim.Preview.open_if_possible(share=1.0, size=(400, 300)) as preview:
        assert preview.is_open, preview.notices
        pump(preview, lambda: preview._link._seen > 0)  # the window says that it has shown something
        assert preview.is_open and not preview.failure, preview.failure

found = []
for _ in range(times):
    {"served": once_served, "window": once_in_a_window}[preview_of]()
    time.sleep(0.05)
    found.append(held())
print(json.dumps(found))
"""


def opened_and_closed(kind: str, tmp_path, **env: str) -> None:
    (tmp_path / "tmp").mkdir()
    code = "import sys; sys.argv[1:] = " + repr([str(tmp_path / "tmp"), str(TIMES), kind]) + "\n" + PREAMBLE
    done = damage.python(code, cwd=tmp_path, timeout=1800, **env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == TIMES
    few, last = found[9], found[-1]
    print(kind, few, last)
    assert last["bytes"] - few["bytes"] < 8e6
    for name in ("handles", "threads", "children", "files"):
        assert last[name] <= few[name], (name, few, last)
    assert last["children"] == last["files"] == 0


def test_a_served_preview_opened_and_closed_fifty_times_leaves_nothing(tmp_path):
    opened_and_closed("served", tmp_path)


@pytest.mark.long
def test_a_window_opened_and_closed_fifty_times_leaves_nothing(tmp_path):
    if lacking := x11.missing():
        pytest.skip(f"no virtual screen: {lacking}")
    (tmp_path / "screen").mkdir()
    with x11.Screen(tmp_path / "screen") as screen:
        opened_and_closed("window", tmp_path, DISPLAY=screen.display)
