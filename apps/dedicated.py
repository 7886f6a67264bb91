"""Is a prefix as good as a model of its own? ``python apps/dedicated.py [FOLDER OF PHOTOGRAPHS]``.

A model is trained at each rank alone, as TensoRF would be; and one model of all ranks, whose prefixes are measured:
by tslim's default, where a ray is rendered at one rank, and with every ray rendered at several ranks from 2 up; each
with as many rays as the others had, and with 1.5 times as many. --quick takes a few minutes on two cores.
"""

import dataclasses
import sys

import _checkout  # noqa: F401

from tslim import cli, experiments
from tslim.experiments import ours, plain

ALONE = "a model of that rank alone"
EVERY_RAY = {
    "prefixes_per_ray": 5,
    "anchors": (2, 2, 2, 2, 3, 4, 4, 4, 6, 6, 8, 8, 10, 12, 14),
    "stage_starts": (0.0, 0.065, 0.12, 0.175, 0.23, 0.28, 0.33),
    "lowest_weight": 1.5,
}
"""The default's anchors without rank 1, which would take from the others what it needs, and with more weight on rank 2;
and growth that takes a third longer, for which there is time where every ray teaches several ranks."""
INIT_SCALE = 0.2
"""Where every ray teaches several ranks, they may start from larger factors."""
FASTER = {"lr_factors": 1.25, "lr_network": 1.5, "lr_affine": 4.0}
"""There the last ranks may learn faster, too, as those of a model that is never rendered at fewer must not; and so may
what all ranks share (the basis and the decoder) and each has of its own, since many more renders say where to go."""


def main(given: experiments.Options) -> None:
    """Trains nine models, and sets the prefixes of four against the five others."""
    experiment = experiments.Experiment("dedicated", given)
    base = experiment.settings
    alone, seconds = [], 0.0
    for rank in (2, 4, 8, 12, 16):
        settings = plain(base, "fixed")
        settings = dataclasses.replace(settings, field=dataclasses.replace(settings.field, max_rank=rank))
        trained = experiment.train(f"alone {rank}", settings, ranks=(rank,))
        alone += trained.rows
        seconds += trained.seconds()
    rates = {name: times * getattr(base, name) for name, times in FASTER.items()}
    every_ray = dataclasses.replace(base, field=dataclasses.replace(base.field, init_scale=INIT_SCALE), **rates)
    models = [
        experiment.train("one model, same rays", ours(base)),
        experiment.train("one model, 1.5 x rays", ours(base, more_rays=1.5)),
        experiment.train("the same rays, each at six ranks", ours(every_ray, **EVERY_RAY)),
        experiment.train("1.5 x rays, each at six ranks", ours(every_ray, more_rays=1.5, **EVERY_RAY)),
    ]
    took = {ALONE: f"{seconds:.0f} together"} | {model.name: f"{model.seconds():.0f}" for model in models}
    experiment.report(
        "prefixes against models of their own",
        [experiments.Variant(ALONE, alone), *models],
        reference=ALONE,
        extra={"seconds": took},
    )


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
