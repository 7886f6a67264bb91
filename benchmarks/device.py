"""What ``apps/device_check.py`` measures on a device, each part in a process of its own.

``python -m benchmarks.device PART ARCH [SCENE] [--tiny] [--seconds=N]`` prints one line of json, within so many seconds
if it can: it does less then, and says so. A part that trains prints what it has found by then before it renders.
"""

import dataclasses
import json
import math
import statistics
import subprocess
import sys
import time
from typing import Any

import tslim

PARTS = ("describe", "twin", "quick", "paper")
SHORT = {"quick": 1 / 10, "paper": 1 / 100}
"""Share of a preset's steps that is done; all of its growth and refreshing falls into it."""
STEPS_SHARE = 0.7
"""of a part's seconds may be gone when its training ends: pictures come after it."""
COMPILES = 10.0
"""A step that takes so many times the median compiles something: it is counted once, not extrapolated."""


class Clock:
    """Knows what is left of the seconds that a part may take."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._began = seconds, time.perf_counter()

    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.perf_counter() - self._began)


def describe(arch: str, scene: str | None, tiny: bool, clock: Clock) -> dict[str, Any]:
    """The device, and what runs on it."""
    import platform

    import taichi

    chosen = tslim.init(arch)
    versions = {"tslim": tslim.__version__, "taichi": ".".join(map(str, taichi.__version__))}
    versions["python"] = platform.python_version()
    return {"arch": chosen.arch, "device": chosen.device, "notes": list(chosen.notes), "versions": versions,
            "memory": _graphics_memory(), "gradients": chosen.gradient_error or "right"}  # fmt: skip


def train(arch: str, scene: str | None, tiny: bool, clock: Clock, preset: str) -> dict[str, Any]:
    """A preset in a hundredth or a tenth of its steps, and how long all of them would take, unless time ran out."""
    tslim.init(arch)
    from tslim.config import with_steps
    from tslim.device import buffers

    small = {"size": 40, "train": 8} if tiny else {}
    data = tslim.load_scene(scene) if scene else tslim.builtin_scene(**small)
    whole = tslim.presets.PRESETS[preset](data.space)
    settings = with_steps(whole, max(int(whole.steps * SHORT[preset]), 12))
    if tiny:
        settings = dataclasses.replace(with_steps(whole, 12), batch_rays=256, grid_start=16, grid_end=24)
    trainer = tslim.Trainer(tslim.Trainer.new_field(data, settings), data, settings)
    took, last = [], time.perf_counter()
    for event in trainer.run():
        if isinstance(event, tslim.Stepped):
            now = time.perf_counter()
            took.append(now - last)
            last = now
            if clock.left() < (1 - STEPS_SHARE) * clock.seconds:
                break
    buffers.read(trainer.batch.loss)  # the device is done
    took[-1] += time.perf_counter() - last
    usual = COMPILES * statistics.median(took)
    once, steady = sum(t for t in took if t > usual), sum(t for t in took if t <= usual)
    minutes = (once + steady * whole.steps / len(took)) / 60 if len(took) == settings.steps else None
    result: dict[str, Any] = {
        "scene": data.name, "steps": len(took), "asked": settings.steps, "of": whole.steps, "seconds": sum(took),
        "ms_per_step": 1000 * statistics.median(took), "minutes_of_all_steps": minutes,
        "psnr_after_these": None, "ms_per_frame": None,
        "array_bytes": sum(o.nbytes for o in (trainer.pipeline, trainer.optimizer, trainer.field, trainer.sampler)),
        "memory": _graphics_memory(),
    }  # fmt: skip
    print(json.dumps(result), flush=True)  # what is known if time runs out while a picture is made
    views = data.test.spread(4)
    renderer = tslim.Renderer(trainer.field)
    quality, seconds = [], []
    for i in [0, *range(len(views))]:  # the first picture compiles
        if seconds and clock.left() < 2 * seconds[-1]:
            break
        image = renderer.render(views.cameras, i)
        seconds.append(image.seconds)
        quality.append(float(tslim.psnr(image.rgb, views.image(i))))
    return result | {
        "psnr_after_these": statistics.mean(quality[1:] or quality), "ms_per_frame": 1000 * min(seconds)
    }  # fmt: skip


def twin(arch: str, scene: str | None, tiny: bool, clock: Clock) -> dict[str, Any]:
    """A step of ours and one of the torch twin's, on the same device and the same rays, in turn."""
    import torch

    tslim.init(arch)
    where = "cuda" if arch == "cuda" and torch.cuda.is_available() else "cpu"
    from benchmarks import workload

    load, _ = workload.prepare(scene, None, warm_steps=30 if tiny else 400, max_grid=128)
    trainer = load.at(32 if tiny else 128, load.field.max_rank, 256 if tiny else 4096)
    run = workload.steps(trainer)
    for _ in range(3):
        next(run)
    torch.set_default_device(where)
    other, batch = workload.twin_of(trainer)
    times: dict[str, list[float]] = {"ours": [], "twin": []}
    for turn in range(2 if tiny else 6):
        turn_began = time.perf_counter()
        ours = [next(run) for _ in range(5)]
        began = time.perf_counter()
        other.train_step(*batch, l1_weight=trainer.l1)  # reads its loss: the device is done
        if turn:
            times["ours"] += ours
            times["twin"].append(time.perf_counter() - began)
            if clock.left() < 2 * (time.perf_counter() - turn_began):
                break
    ms = {name: 1000 * statistics.median(found) for name, found in times.items()}
    return {"twin_runs_on": where, "ours_ms": ms["ours"], "twin_ms": ms["twin"], "ratio": ms["twin"] / ms["ours"]}


def _graphics_memory() -> int | None:
    """Bytes in use on the first GPU, as nvidia-smi says; None where it is not there."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def main(words: list[str]) -> None:
    """One part; its result as the last line."""
    tiny = "--tiny" in words
    clock = Clock(next((float(word[10:]) for word in words if word.startswith("--seconds=")), math.inf))
    part, arch, *scene = [word for word in words if not word.startswith("--")]
    workload = arch, scene[0] if scene else None, tiny, clock
    if part in SHORT:
        print(json.dumps(train(*workload, part)))
    else:
        print(json.dumps({"describe": describe, "twin": twin}[part](*workload)))


if __name__ == "__main__":
    main(sys.argv[1:])
