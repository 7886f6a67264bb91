"""What has to be measured in processes of their own: start-up, stalls, and peak memory."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Report

ROOT = Path(__file__).resolve().parent.parent

_START = """
import time
began = time.perf_counter()
import tslim
after_import = time.perf_counter()
tslim.init("cpu")
after_init = time.perf_counter()
import numpy as np
from tslim.scene.domain import Domain
from tslim.scene.scene import Views
eyes = 4 * np.random.default_rng(0).normal(size=(4, 3)) / 1.7
cameras = tslim.Cameras.look_at(eyes, (0, 0, 0), (0, 0, 1), 40, (64, 64))
pixels = np.full(4 * 64 * 64, 0xFF808080, np.uint32)
views = Views(cameras, pixels, np.arange(5) * 64 * 64, tuple("abcd"))
domain = Domain.of(np.array([[-1.5] * 3, [1.5] * 3]), near=0.1, far=9.0)
scene = tslim.Scene("grey", "none", "none", views, Views.none(), domain)
settings = tslim.presets.quick()
made = time.perf_counter()
for event in tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings).run():
    if isinstance(event, tslim.Stepped):
        break
done = time.perf_counter()
result = {"import": after_import - began, "init": after_init - after_import, "first step": done - made,
          "all": done - began}
"""

_STALLS = """
import dataclasses, statistics, time
import tslim
tslim.init("cpu")
scene = tslim.builtin_scene(size=100, train=30, test=0)
policy = tslim.ScheduleConfig(policy="train", upsilon=0.2)
settings = dataclasses.replace(tslim.presets.quick(), steps=%(steps)d, grow_steps=%(grow)s,
                               occupancy_steps=%(occupancy)s, schedule=policy)
trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
last, kinds, events = time.perf_counter(), [], []
for event in trainer.run():
    now = time.perf_counter()
    if isinstance(event, tslim.Stepped):
        kinds.append([now - last, set()])
        last = now
    elif kinds:
        kinds[-1][1].add(type(event).__name__)
        last = now
plain = statistics.median(t for t, names in kinds[10:] if not names)
result = {"a step": plain}
for name in ("RankGrew", "GridGrew", "OccupancyRefreshed"):
    # The step of the change, and the first one after it, which may have to make room.
    at = [i for i, (_, names) in enumerate(kinds) if name in names and i > 10]
    times = [kinds[j][0] for i in at for j in (i, i + 1) if j < len(kinds)]
    result[name] = max(times) - plain if times else 0.0
"""

_MEMORY = """
import dataclasses
import tslim
tslim.init("cpu")
scene = tslim.builtin_scene(size=%(size)d, train=%(train)d, test=0)
settings = dataclasses.replace(tslim.presets.%(preset)s(), steps=40, grow_steps=(4,), occupancy_steps=(),
                               schedule=tslim.ScheduleConfig(policy="fixed"))
trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
predicted = sum(trainer.memory.values())
for _ in trainer.run():
    pass
# Not getrusage: its maximum begins with the size of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
result = {"predicted MB": predicted / 1e6, "peak MB": int(peak.split()[1]) * 1024 / 1e6}
"""


_PREVIEW = """
import dataclasses, tempfile, time
from pathlib import Path
import tslim
tslim.init("cpu")
scene = tslim.builtin_scene(size=200, train=60, test=4)
settings = dataclasses.replace(tslim.presets.demo(), steps=10**6, batch_rays=4096, batch_decoded=0,
                               grow_steps=(60, 120), occupancy_steps=(60, 120), checkpoint_every=10**6,
                               schedule=tslim.ScheduleConfig(policy="fixed"))
trainer = tslim.Trainer(tslim.Trainer.new_field(scene, settings), scene, settings)
run = trainer.run()
def steps_per_second(preview, seconds=%(seconds)d):
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        event = next(run)
        if preview is not None:
            preview.show(event)
        n += isinstance(event, tslim.Stepped)
    return n / (time.perf_counter() - began)
while trainer.step < %(warm)d:
    next(run)
trainer.config = dataclasses.replace(trainer.config, lr_factors=1e-12, lr_network=1e-12, lr_scales=1e-12)
without, beside, place = [], [], ""
for _ in range(3):
    without.append(steps_per_second(None))
    with tslim.Preview.open_if_possible() as preview:
        preview.look_at(trainer.field, scene, folder=Path(tempfile.mkdtemp()), trains=True)
        steps_per_second(preview, 6)  # until the window is up
        beside.append(steps_per_second(preview))
        place = "a window" if preview.is_open else "preview.png"
without.append(steps_per_second(None))
result = {"shown in": place, "steps/s alone": sum(without) / 4, "steps/s with preview": sum(beside) / 3,
          "taken": 1 - sum(beside) / 3 / (sum(without) / 4)}
"""


def _run(code: str, **environment: str) -> dict[str, Any]:
    """Runs code that leaves a dictionary in ``result``."""
    script = code + "\nimport json\nprint('RESULT' + json.dumps(result))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"a measuring process failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.rpartition("RESULT")[2])


def startup(report: Report) -> None:
    """Import, init and first training step, with Taichi's offline cache empty and then filled."""
    with tempfile.TemporaryDirectory() as cache:
        runs = [_run(_START, TI_OFFLINE_CACHE_FILE_PATH=cache) for _ in range(4)]
    warm = min(runs[1:], key=lambda run: run["all"])
    rows = [
        {"start": name} | {f"{k} s": v for k, v in run.items()} for name, run in (("cold", runs[0]), ("warm", warm))
    ]
    report.table("startup", "Start-up to the end of the first step (goal: 10 s cold, 3 s warm)", rows)


def stalls(report: Report) -> None:
    """How much longer than an ordinary step the steps take at which rank, grid or occupancy change."""
    code = _STALLS % {"steps": 160, "grow": (60, 90, 120, 140), "occupancy": (60, 100)}
    result = _run(code)
    report.table("stalls", "Longest stall (goal: at most 0.5 s)", [{"cause": k, "s": v} for k, v in result.items()])


def preview(report: Report) -> None:
    """Training with and without the preview, in turn, on the display that there is or on a virtual one."""
    environment, server = {}, None
    if not os.environ.get("DISPLAY") and shutil.which("Xvfb"):
        read, write = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as numbers:
            environment["DISPLAY"] = f":{numbers.readline().strip()}"
    try:
        result = _run(_PREVIEW % {"warm": 200, "seconds": 10}, **environment)
    finally:
        if server is not None:
            server.terminate()
            server.wait(timeout=10)
    report.table("preview_cost", "What the preview takes of training (goal: 10 %)", [result])


def memory(report: Report) -> None:
    """Peak memory of a process that trains at the final grid of a preset, at full rank."""
    rows = []
    for preset, size, train in (("quick", 400, 100), ("paper", 400, 100)):
        result = _run(_MEMORY % {"preset": preset, "size": size, "train": train})
        rows.append({"preset": preset, "photographs": f"{train} of {size}x{size}"} | result)
    report.table("memory", "Peak memory over 40 steps, most of them at the final grid (goal: 2000 MB)", rows)
