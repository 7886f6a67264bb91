"""Does slimming help when photographs are few? ``python apps/sparse_views.py data/llff/fern``.

SlimmeRF's section 3.4: trainings on 3, 6 and 9 photographs of a forward-facing scene, measured by ranks kept, beside
the published means over the eight LLFF scenes. By default the photographs are evenly spaced among those to train on,
and the whole held-out set is measured. ``--protocol paper`` is what the paper's code does: neighbouring photographs,
and as few held-out ones. ``--regnerf both`` trains each once more with RegNeRF's smooth unseen depth and its
annealed sampling, ``--regnerf each`` with one of them alone, too. --quick takes a few minutes on two cores.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Literal

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import ours, plain

import tslim
from tslim import cli, files
from tslim.measuring import plots
from tslim.scene.scene import Scene

RANKS = (1, 2, 4, 8, 16, 24)
PUBLISHED = {
    "SRF": (17.07, 16.75, 17.39),
    "PixelNeRF": (16.17, 17.03, 18.92),
    "MVSNeRF": (17.88, 19.99, 20.47),
    "mip-NeRF": (14.62, 20.87, 24.26),
    "DietNeRF": (14.94, 21.75, 24.28),
    "RegNeRF": (19.08, 23.10, 24.86),
    "SlimmeRF-24, 4 ranks kept": (16.63, 18.21, 19.66),
    "SlimmeRF-24, 8 ranks kept": (16.76, 18.97, 20.97),
    "SlimmeRF-24, 16 ranks kept": (16.74, 19.09, 21.29),
    "SlimmeRF-24, 24 ranks kept": (16.72, 19.08, 21.35),
}
"""PSNR in dB with 3, 6 and 9 photographs, as the paper prints it: means over eight scenes, at a higher resolution."""
COUNTS = (3, 6, 9)
DEPTH = {"unseen_depth": 1.0, "unseen_spread": 0.05}
"""Smooth unseen depth: ten times the weight, seen from three times as far, made Fern worse by more than this gains"""
ANNEALED = {"anneal_share": 0.3}
REGULARISED = {"smooth unseen depth": DEPTH, "annealed sampling": ANNEALED, "both": DEPTH | ANNEALED}
"""What ``--regnerf each`` adds, with the settings"""


@dataclass(frozen=True)
class Options(experiments.Options):
    """What the experiment can be told."""

    protocol: Literal["even", "paper"] = "even"
    """photographs evenly spaced, all held-out ones measured; or the paper's: neighbouring ones, as few measured"""
    schedule: Literal["staged", "train"] = "staged"
    """tslim's default, or the paper's TRaIn"""
    regnerf: Literal["no", "both", "each"] = "no"
    """besides: the same with RegNeRF's smooth unseen depth and annealed sampling, and with each of them alone"""


def thinned(scene: Scene, count: int, protocol: str) -> Scene:
    """The scene with ``count`` photographs to train on; box, near plane and space stay those of the whole capture."""
    n = len(scene.train)
    if protocol == "paper":
        first = (n - count) // 2
        views = scene.train.subset(range(first, first + count))
        return dataclasses.replace(scene, train=views, test=scene.test.subset(range(min(count, len(scene.test)))))
    return dataclasses.replace(
        scene, train=scene.train.subset([round((i + 0.5) * n / count - 0.5) for i in range(count)])
    )


def main(args: Options) -> None:
    """Trains one model for each number of photographs; writes table, json and plot."""
    experiment = experiments.Experiment(f"sparse-{args.protocol}", args)
    base = experiment.settings
    settings = ours(base) if args.schedule == "staged" else plain(base, "train", upsilon=0.1, eta=base.steps // 250)
    counts = [count for count in COUNTS if count <= len(experiment.scene.train)]
    if not counts:
        raise tslim.ConfigError(f"{experiment.scene.source}: too few photographs, at least {min(COUNTS)} are needed")
    names = {"no": (), "both": ("both",), "each": tuple(REGULARISED)}[args.regnerf]
    ways = {"": {}} | {f", {name}": REGULARISED[name] for name in names}
    lines_of = {
        (way, count): Line(
            f"{count} views{way}", dataclasses.replace(settings, **added), RANKS,
            thinned(experiment.scene, count, args.protocol),
        )
        for count in counts
        for way, added in ways.items()
    }  # fmt: skip
    trained = {variant.name: variant for variant in experiment.train(*lines_of.values())}
    variants = {key: trained[line.name] for key, line in lines_of.items() if line.name in trained}
    experiment.report(f"few photographs, {args.protocol} protocol", list(variants.values()))
    counts = [count for count in counts if any((way, count) in variants for way in ways)]

    lines = {name: dict(zip(COUNTS, values, strict=True)) for name, values in PUBLISHED.items()}
    lines |= {
        f"tslim on {experiment.scene.name}{way}, {rank} ranks kept": {
            count: variants[way, count].psnr(rank) for count in counts
        }
        for way in ways
        for rank in RANKS
        if all((way, count) in variants and variants[way, count].psnr(rank) is not None for count in counts)
    }
    heads = ["PSNR (dB)", *(f"{count} photographs" for count in counts)]
    cells = [[name, *(f"{by_count[count]:.2f}" for count in counts)] for name, by_count in lines.items()]
    title = f"few photographs, {args.protocol} protocol, beside published means over eight scenes"
    experiment.console.table(heads, cells, title=title)
    folder = experiment.folder
    text = json.dumps({"title": title, "protocol": args.protocol, "psnr": lines}, indent=2) + "\n"
    experiment.console.written(
        [
            files.write_bytes(folder / "published.json", text.encode()),
            plots.few_views(folder / "few-views.png", lines, counts, title=title),
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options))
