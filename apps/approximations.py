"""What each saving of the preset quick costs: ``python apps/approximations.py [FOLDER OF PHOTOGRAPHS]``.

Starts from the paper's decoder and sampling and adds one saving after another, down to the preset; all with the same
rays, steps and schedule. The column of seconds says what each is for. --quick takes a few minutes on two cores.
"""

import dataclasses
import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import ours

import tslim
from tslim import cli

SAVINGS = {
    "a smaller decoder": ("field", "lr_network"),
    "whole-voxel steps": ("step_ratio",),
    "one colour a ray": ("colour_span",),
    "appearance where the weight is 0.01": ("weight_threshold",),
    "emptier space, rays end at 1 %": ("occupancy_threshold", "occupancy_first", "early_stop"),
    "lazy Adam": ("lazy_adam",),
}
"""What is added, with the settings that it takes over from the preset"""


def main(args: experiments.Options) -> None:
    """Trains one model more than there are savings."""
    experiment = experiments.Experiment("approximations", args)
    goal, paper = ours(experiment.settings), tslim.presets.paper()
    decoder = {n: getattr(paper.field, n) for n in ("decoder_width", "feature_encoding", "direction_encoding")}
    exact = {name: getattr(paper, name) for names in SAVINGS.values() for name in names}
    settings = dataclasses.replace(goal, **exact | {"field": dataclasses.replace(goal.field, **decoder)})
    lines = [Line("no savings", settings)]
    for saving, names in SAVINGS.items():
        settings = dataclasses.replace(settings, **{name: getattr(goal, name) for name in names})
        lines.append(Line(f"+ {saving}", settings))
    variants = experiment.train(*lines)
    seconds = {variant.name: f"{variant.history[-1]['seconds']:.0f}" for variant in variants}
    experiment.report("savings, one after another", variants, extra={"seconds": seconds})


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
