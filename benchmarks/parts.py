"""The parts of the benchmark: each measures one thing and hands its figures to the report."""

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import workload as workloads
from benchmarks.machine import Machine
from benchmarks.report import Report
from benchmarks.stages import Counts, minimal_work, timed_stages
from benchmarks.workload import Workload

Row = dict[str, Any]


def _warm(trainer: Any, n: int = 3):
    """The trainer's steps, after a few that compile kernels and make room."""
    run = workloads.steps(trainer)
    for _ in range(n):
        next(run)
    return run


def _counts(trainer: Any) -> Counts:
    """Of the last step."""
    p = trainer.pipeline
    used = int(np.diff(p.ray_used[: 2 * p.n_rays].reshape(-1, 2)).sum())
    field = trainer.field
    shapes = [shape for name, (_, shape) in field.decoder.layout.items() if name.startswith("w")]
    layers = (shapes[0][0], *(shape[1] for shape in shapes))
    from_features = 27 * (1 + 2 * field.config.feature_encoding)
    return Counts(p.n_rays, p.n_samples, used, p.n_visible, p.n_groups, trainer.rank, field.grid, layers, from_features)


def step(load: Workload, machine: Machine, report: Report, sides: list[int], n_steps: int) -> None:
    """A training step, stage by stage, against what each stage needs at least; and rank 4 against rank 16."""
    for side in sides:
        total = {}
        for rank in (16, 4):
            trainer = load.at(side, min(rank, load.field.max_rank))
            run = _warm(trainer)
            untimed = [next(run) for _ in range(n_steps)]
            total[rank] = 1e3 * statistics.median(untimed)
            with timed_stages(trainer) as watch:
                for seconds in itertools.islice(run, n_steps):
                    watch.end_step(seconds)
            took, counts = watch.medians_ms(), _counts(trainer)
            floor = _stage_table(report, machine, took, counts, side)
            if rank == 16:
                report.ratio(
                    f"step_over_roofline_{side}", f"rank 16, {side}³: a step over its roofline",
                    total[rank] / floor, 2.5, least=False,
                )  # fmt: skip
            del trainer, run
        report.ratio(f"rank16_over_rank4_{side}", f"{side}³: rank 16 over rank 4", total[16] / total[4], 2.0)
        report.say("")


def _stage_table(report: Report, machine: Machine, took: dict[str, float], c: Counts, side: int) -> float:
    rows: list[Row] = []
    for name, work in minimal_work(c).items():
        least = machine.roofline_ms(work.flops, work.n_bytes)
        rows.append(_stage_row(name, took.get(name, 0.0), work.n_bytes, work.flops, least))
    rows.append(_stage_row("other (host)", took["other"], 0.0, 0.0, 0.0))
    floor = sum(row["at least ms"] for row in rows)
    sums = [sum(row[k] for row in rows) for k in ("ms", "MB", "MFLOP")]
    rows.append(_stage_row("whole step", sums[0], sums[1] * 1e6, sums[2] * 1e6, floor))
    title = (
        f"Training step, rank {c.rank}, grid {'x'.join(map(str, c.grid))}, {c.rays} rays: {c.samples / c.rays:.1f} "
        f"samples a ray, {c.used / c.rays:.1f} looked at, {c.visible / c.rays:.1f} given a colour"
    )
    report.table(f"step_{side}_rank{c.rank}", title, rows)
    report.figures[f"counts_{side}_rank{c.rank}"] = vars(c) | {"grid": list(c.grid)}
    return floor


def _stage_row(name: str, ms: float, n_bytes: float, flops: float, least: float) -> Row:
    return {
        "stage": name,
        "ms": ms,
        "MB": n_bytes / 1e6,
        "MFLOP": flops / 1e6,
        "GFLOP/s": flops / max(ms, 1e-9) / 1e6,
        "at least ms": least,
        "share of roofline": f"{100 * least / max(ms, 1e-9):.0f} %" if least else "",
    }


SAMPLINGS = ("paper", "quick")
"""Presets whose way of sampling a ray is timed against the twin, which samples as the paper does."""


def twin(load: Workload, report: Report, sides: list[int], rounds: int) -> None:
    """Our step and the twin's on the same weights, rays, occupancy and rank, in turn; medians.

    Ours is timed as the paper samples, where it computes what the twin computes, and as ``quick`` does.
    """
    rows: list[Row] = []
    for side, rank in itertools.product(sides, (16, 4)):
        trainers = {s: load.at(side, min(rank, load.field.max_rank), sampling=s) for s in SAMPLINGS}
        runs = {s: _warm(trainer) for s, trainer in trainers.items()}
        other, batch = workloads.twin_of(trainers["paper"])
        l1 = trainers["paper"].l1
        other.train_step(*batch, l1_weight=l1)
        took: dict[str, list[float]] = {s: [] for s in (*SAMPLINGS, "twin")}
        for _ in range(rounds):
            for sampling in SAMPLINGS:
                took[sampling] += [next(runs[sampling]) for _ in range(4)]
            began = time.perf_counter()
            other.train_step(*batch, l1_weight=l1)
            took["twin"].append(time.perf_counter() - began)
        ms = {name: 1e3 * statistics.median(times) for name, times in took.items()}
        rows.append(
            {"grid": f"{side}³", "rank": rank, "twin ms": ms["twin"]}
            | {f"ours, {s} ms": ms[s] for s in SAMPLINGS}
            | {f"ratio, {s}": ms["twin"] / ms[s] for s in SAMPLINGS}
            | {"at best, twin ms": 1e3 * min(took["twin"]), "at best, paper ms": 1e3 * min(took["paper"])}
        )
        del trainers, runs, other, batch
    report.table("twin", "Training step, 4096 rays: ours, sampled as two presets do, and the torch twin in turn", rows)
    goals = {(128, 16): 20.0, (300, 16): 12.0}
    for row, (side, rank) in zip(rows, itertools.product(sides, (16, 4)), strict=True):
        for sampling in SAMPLINGS:
            report.ratio(
                f"twin_over_ours_{side}_rank{rank}" + ("" if sampling == "paper" else f"_{sampling}"),
                f"{side}³, rank {rank}: the twin's step over ours, sampled as {sampling}",
                row[f"ratio, {sampling}"], goals.get((side, rank)),
            )  # fmt: skip
    report.say("")


def render(load: Workload, report: Report, rounds: int, every: int = 8) -> None:
    """An 800 × 800 view against the twin, and how many frames a second a small moving view gets at rank 4."""
    trainer = load.at(300 if load.field.max_rank >= 16 else 128)
    _warm(trainer, 1)
    other, _ = workloads.twin_of(trainer)
    cameras = load.cameras(800)
    renderers = {s: workloads.renderer(load, s) for s in SAMPLINGS}
    background = torch.tensor(load.field.background or (1.0, 1.0, 1.0))
    chunks = workloads.image_rays(cameras, 4096, every)
    n_rays = int(np.prod(cameras.sizes[0]))
    timed = sum(len(o) for o, _ in chunks)
    took: dict[str, list[float]] = {s: [] for s in (*SAMPLINGS, "twin")}
    images = {s: renderers[s].render(cameras).rgb for s in SAMPLINGS}
    for _ in range(rounds):
        for sampling in SAMPLINGS:
            took[sampling] += [renderers[sampling].render(cameras).seconds for _ in range(2)]
        began = time.perf_counter()
        for origins, directions in chunks:
            other.render(origins, directions, background)
        took["twin"].append((time.perf_counter() - began) * n_rays / timed)
    ms = {name: 1e3 * statistics.median(times) for name, times in took.items()}
    width, height = (int(s) for s in cameras.sizes[0])
    grid = "x".join(map(str, load.field.grid))
    rows = [
        {"view": f"{width}x{height}, {grid}, rank {load.field.max_rank}", "sampled as": s, "ours ms": ms[s],
         "twin ms": ms["twin"], "ratio": ms["twin"] / ms[s]}
        for s in SAMPLINGS
    ]  # fmt: skip
    report.table("render", f"Rendering (twin: every {every}th chunk of 4096 rays, times {every})", rows)
    difference = float(np.mean((images["paper"] - images["quick"]) ** 2))
    report.say(f"the two pictures differ by {-10 * np.log10(max(difference, 1e-12)):.1f} dB PSNR\n")
    for s in SAMPLINGS:
        key = "twin_over_ours_render_800" + ("" if s == "paper" else f"_{s}")
        report.ratio(key, f"the twin's 800x800 view over ours, sampled as {s}", ms["twin"] / ms[s], 20.0)
    small, rank = load.scene.orbit(24, size=(400, 400)), min(4, load.field.max_rank)
    moving = []
    for s in SAMPLINGS:
        frames = [renderers[s].render(small, i, rank=rank).seconds for i in range(24)][4:]
        middle = statistics.median(frames)
        moving.append({"rank": rank, "sampled as": s, "median ms": 1e3 * middle, "frames/s": 1 / middle})
    report.table("preview_view", "Moving view, 400x400 (goal: 5 frames/s)", moving)


def growth(load: Workload, report: Report, n_steps: int, plot: Path | None) -> None:
    """How the cost of a step grows with rank, grid and rays, and that of a view with its size; one at a time."""
    axes: dict[str, list[Row]] = {"rank": [], "grid": [], "rays": [], "image": []}
    top = load.field.max_rank
    cases = [("grid", s, (s, top, 4096)) for s in (64, 96, 128, 192, 300)]
    cases += [("rays", n, (128, top, n)) for n in (1024, 2048, 4096, 8192)]
    cases += [("rank", r, (128, r, 4096)) for r in (1, 2, 4, 8, 12, 16) if r <= top]
    for name, value, (side, rank, rays) in cases:
        trainer = load.at(side, rank, rays)
        run = _warm(trainer)
        ms = 1e3 * statistics.median(itertools.islice(run, n_steps))
        c = _counts(trainer)
        axes[name].append({name: value, "ms": ms, "looked at": c.used, "given a colour": c.visible})
        del trainer, run
    renderer = workloads.renderer(load)
    for size in (100, 200, 400, 800):
        cameras = load.cameras(size)
        renderer.render(cameras)
        seconds = statistics.median(renderer.render(cameras).seconds for _ in range(3))
        axes["image"].append({"image": size, "ms": 1e3 * seconds})
    titles = {
        "rank": "A step by rank (128³, 4096 rays)",
        "grid": f"A step by grid side (rank {top}, 4096 rays)",
        "rays": f"A step by rays (rank {top}, 128³)",
        "image": f"A view by its side (rank {top}, 128³)",
    }
    for name, rows in axes.items():
        report.table(f"growth_{name}", titles[name], rows)
    if plot is not None:
        _plot(axes, titles, plot)
        report.say(f"wrote {plot}")


def _plot(axes: dict[str, list[Row]], titles: dict[str, str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(13, 3.2), constrained_layout=True)
    for panel, (name, rows) in zip(panels, axes.items(), strict=True):
        panel.plot([r[name] for r in rows], [r["ms"] for r in rows], "o-", color="#1f6f8b")
        panel.set(title=titles[name], xlabel=name, xlim=(0, None), ylim=(0, None))
        panel.title.set_fontsize(9)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
