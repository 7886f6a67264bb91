"""What ``apps/device_check.py`` measures on a device, each part in a process of its own.

``python -m benchmarks.device PART ARCH [SCENE] [--tiny] [--seconds=N]`` prints one line of json, within so many seconds
if it can: it does less then, and says so. A part that trains prints what it has found by then before it renders.
SCENE is a folder of photographs, or the file that the part ``scene`` left.
"""

import dataclasses
import json
import math
import pickle
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tslim

BUILTIN = "built-in.pickle"
"""Name of the file that the part ``scene`` writes."""
SHORT = {"quick": 1 / 10, "paper": 1 / 100}
"""Share of a preset's steps that is done; all of its growth and refreshing falls into it."""
WARM_SHARE = 0.4
"""of a part's seconds may go into training a field before steps of it are timed."""
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


def scene(arch: str, path: str | None, tiny: bool, clock: Clock) -> dict[str, Any]:
    """Writes the built-in scene to a file: a slow device would take minutes for its rays, and more than once."""
    tslim.init(arch)
    began = time.perf_counter()
    made = _opened(None, tiny)
    Path(path or BUILTIN).write_bytes(pickle.dumps(made))
    return {"said": f"{len(made.train)} photographs in {time.perf_counter() - began:.1f} s, on the CPU"}


def _opened(place: str | None, tiny: bool) -> "tslim.Scene":
    if place and Path(place).name == BUILTIN:
        return pickle.loads(Path(place).read_bytes())  # our own, written a moment ago
    return tslim.load_scene(place) if place else tslim.builtin_scene(**({"size": 40, "train": 8} if tiny else {}))


def train(arch: str, scene: str | None, tiny: bool, clock: Clock, preset: str) -> dict[str, Any]:
    """A preset in a hundredth or a tenth of its steps, and how long all of them would take, unless time ran out."""
    tslim.init(arch)
    from tslim.config import with_steps
    from tslim.device import buffers

    data = _opened(scene, tiny)
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

    warm_steps = 30 if tiny else 400
    load, _ = workload.prepare(
        _opened(scene, tiny), None, warm_steps=warm_steps, max_grid=128, seconds=WARM_SHARE * clock.left()
    )
    trainer = load.at(32 if tiny else 128, load.field.max_rank, 256 if tiny else 4096)
    run = workload.steps(trainer)
    first = [next(run) for _ in range(2)]
    in_turn = 5 if 30 * first[-1] < clock.left() else 1
    torch.set_default_device(where)
    other, batch = workload.twin_of(trainer)
    times: dict[str, list[float]] = {"ours": [], "twin": []}
    for turn in range(2 if tiny else 6):
        turn_began = time.perf_counter()
        ours = [next(run) for _ in range(in_turn)]
        began = time.perf_counter()
        other.train_step(*batch, l1_weight=trainer.l1)  # reads its loss: the device is done
        if turn:
            times["ours"] += ours
            times["twin"].append(time.perf_counter() - began)
            if clock.left() < 2 * (time.perf_counter() - turn_began):
                break
    ms = {name: 1000 * statistics.median(found) for name, found in times.items()}
    return {"twin_runs_on": where, "ours_ms": ms["ours"], "twin_ms": ms["twin"], "ratio": ms["twin"] / ms["ours"],
            "warm_steps": load.warm_steps, "warm_steps_asked": warm_steps}  # fmt: skip


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
    part, arch, *place = [word for word in words if not word.startswith("--")]
    workload = arch, place[0] if place else None, tiny, clock
    if part in SHORT:
        print(json.dumps(train(*workload, part)))
    else:
        print(json.dumps({"describe": describe, "scene": scene, "twin": twin}[part](*workload)))


if __name__ == "__main__":
    main(sys.argv[1:])
