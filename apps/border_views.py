"""How good is a field where few photographs look? ``python apps/border_views.py FOLDER OF PHOTOGRAPHS``.

Besides the usual held-out views, those at the border of a capture are held out: the ones that see most of what others
do not. Trainings with and without unseen cameras (``--unseen-occlusion``) are measured on both. --quick takes a few
minutes on two cores.
"""

import dataclasses
import sys

import _checkout  # noqa: F401
import _experiments as experiments
import numpy as np
from _experiments import Line

import tslim
from tslim import cli
from tslim.measuring import evaluate
from tslim.scene import paths
from tslim.scene.scene import Views
from tslim.sweeps.table import mean_row

BORDER = 6
"""Views at the border that are held out, at most a quarter of all."""
RANKS = (1, 2, 4, 8, 16)
GRID, DISTANCES, ENOUGH = 7, (1.0, 1.5, 2.5), 12
"""Pixels along each side of a view that are looked at, at what distances (of that to what all cameras look at), and
how many views seeing a point are as good as any more."""
APART = 0.15
"""Of that distance between two views at the border: neighbours would leave a gap."""


def shared_views(views: Views) -> np.ndarray:
    """(n,) for each view how many others see what it sees, on the average, counted up to ``ENOUGH``."""
    cameras = views.cameras
    focus = paths.focus_point(cameras)
    steps = (np.arange(GRID) + 0.5) / GRID
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    found = np.zeros(len(cameras))
    for i in range(len(cameras)):
        origins, directions = cameras.rays(i, grid * cameras.sizes[i])
        far = np.linalg.norm(focus - cameras.origins[i])
        points = np.concatenate([origins + far * distance * directions for distance in DISTANCES])
        counts = np.zeros(len(points))
        for j in range(len(cameras)):
            with np.errstate(all="ignore"):
                pixels, depth = cameras.project(points, j)
                counts += (j != i) & (depth > 0) & (pixels > 0).all(1) & (pixels < cameras.sizes[j]).all(1)
        found[i] = np.minimum(counts, ENOUGH).mean()
    return found


def border(views: Views, count: int) -> list[int]:
    """Numbers of the views that share least with others, none beside another."""
    focus, origins = paths.focus_point(views.cameras), views.cameras.origins
    chosen: list[int] = []
    for i in np.argsort(shared_views(views), kind="stable"):
        least = APART * np.linalg.norm(origins[i] - focus)
        if len(chosen) < count and all(np.linalg.norm(origins[i] - origins[j]) > least for j in chosen):
            chosen.append(int(i))
    return chosen


def main(args: experiments.Options) -> None:
    """Trains one model a setting, and measures each on both kinds of views."""
    experiment = experiments.Experiment("border-views", args)
    every, base = experiment.scene.train, experiment.settings
    held_out = border(every, min(BORDER, len(every) // 4))
    if not held_out:
        raise tslim.SceneError(f"{experiment.scene.source}: {len(every)} photographs, too few to hold some out")
    rest = [i for i in range(len(every)) if i not in held_out]
    scene, outer = dataclasses.replace(experiment.scene, train=every.subset(rest)), every.subset(held_out)
    experiment.console.fact("border", ", ".join(outer.names))
    weight = base.unseen_occlusion or 0.003
    weights = {"without unseen cameras": 0.0, f"unseen cameras, {weight:g}": weight}
    trained = experiment.train(
        *(Line(name, dataclasses.replace(base, unseen_occlusion=w), RANKS, scene) for name, w in weights.items())
    )
    lines = []
    for usual in trained:
        models = [tslim.load(experiment.run(usual.name, seed).model) for seed in range(args.seeds)]
        found = [evaluate.rank_sweep(model, outer, RANKS) for model in models]
        rows = [mean_row(of_rank) for of_rank in zip(*found, strict=True)]
        lines += [
            dataclasses.replace(usual, name=f"{usual.name}: usual views"),
            experiments.Variant(f"{usual.name}: border views", rows, usual.settings),
        ]
    experiment.report("views at the border of a capture", lines)


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
