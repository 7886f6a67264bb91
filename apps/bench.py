"""How fast tslim is, stage by stage, beside a torch twin that works as the public implementation does.

python apps/bench.py                                  # everything, about ten minutes on two cores
python apps/bench.py --only step twin --json out.json
python apps/bench.py --scene data/lego --model runs/lego/model.slim
"""

# isort: off
import _checkout  # noqa: F401  finds tslim in the checkout
import tslim  # before numpy and torch: it chooses the kernels of BLAS

# isort: on
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from benchmarks import machine, parts, processes, workload
from benchmarks.report import Report
from tslim import cli

Part = Literal["step", "twin", "render", "growth", "startup", "stalls", "preview", "memory"]
EVERY_PART: tuple[Part, ...] = ("step", "twin", "render", "growth", "startup", "stalls", "preview", "memory")


@dataclass(frozen=True)
class Options:
    """Measure tslim and the torch twin, in turn, on the same weights, rays, occupancy and ranks."""

    only: tuple[Part, ...] = EVERY_PART
    """parts to run"""
    scene: str | None = None
    """a data set to take rays from; the built-in scene if not given"""
    model: Path | None = None
    """a model file of that scene to start from; if not given, a field is trained for a minute or two"""
    grids: tuple[int, ...] = (128, 300)
    """grid sides of the parts step and twin"""
    steps: int = 20
    """steps timed for each median"""
    rounds: int = 5
    """turns of ours and the twin's"""
    warm_steps: int = 1000
    """steps that the field is trained for when there is no model"""
    plot: Path | None = None
    """where to put the picture of the part growth"""
    json: Path | None = None
    """where to write every figure that is printed"""


def main(options: Options) -> None:
    """Runs the parts that were asked for."""
    backend = tslim.init("cpu")
    torch.set_num_threads(backend.threads)
    report = Report()
    load_before = os.getloadavg()[0]
    ceiling = machine.measure()
    report.table("machine", str(backend), [{
        "GEMM GFLOP/s": ceiling.gemm_gflops, "memory GB/s": ceiling.bandwidth_gbs, "threads": backend.threads,
        "load before": load_before,
    }])  # fmt: skip
    if load_before > 0.5:
        report.say("other programs keep this machine busy: times are too long, and ratios are not to be trusted\n")
    if {"step", "twin", "render", "growth"} & set(options.only):
        load, seconds = workload.prepare(
            options.scene, options.model, warm_steps=options.warm_steps, max_grid=max(300, *options.grids)
        )
        share = load.field.occupancy.share() if load.field.occupancy else 1.0
        report.say(f"field ready after {seconds:.0f} s, {100 * share:.1f} % of its box occupied\n")
        if "step" in options.only:
            parts.step(load, ceiling, report, list(options.grids), options.steps)
        if "twin" in options.only:
            parts.twin(load, report, list(options.grids), options.rounds)
        if "render" in options.only:
            parts.render(load, report, options.rounds)
        if "growth" in options.only:
            parts.growth(load, report, options.steps, options.plot)
    for name in ("startup", "stalls", "preview", "memory"):
        if name in options.only:
            getattr(processes, name)(report)
    if options.json is not None:
        report.write(options.json)


if __name__ == "__main__":
    sys.exit(cli.guarded(main, tyro.cli(Options)))
