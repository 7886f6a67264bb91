"""Is a prefix as good as a model of its own? ``python apps/dedicated.py [FOLDER OF PHOTOGRAPHS]``.

A model is trained at each rank alone, as TensoRF would be; and one model of all ranks, whose prefixes are measured:
by tslim's default for objects, where ranks are put in order half-way; in stages, as in open spaces; and with every ray
rendered at six ranks. Each with as many rays as the others had, the first with 1.5 times as many besides. --quick takes
a few minutes on two cores.
"""

import dataclasses
import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import ordered, ours, plain, six_ranks_a_ray

from tslim import cli

ALONE = "a model of that rank alone"


def main(args: experiments.Options) -> None:
    """Trains nine models, and sets the prefixes of four against the five others."""
    experiment = experiments.Experiment("dedicated", args)
    base = experiment.settings
    dedicated = []
    for rank in (2, 4, 8, 12, 16):
        settings = plain(base, "fixed")
        settings = dataclasses.replace(settings, field=dataclasses.replace(settings.field, max_rank=rank))
        dedicated.append(Line(f"alone {rank}", settings, ranks=(rank,)))
    trained = experiment.train(
        *dedicated,
        Line("one model, same rays", ordered(base)),
        Line("one model, 1.5 x rays", ordered(base, more_rays=1.5)),
        Line("in stages, same rays", ours(base)),
        Line("the same rays, each at six ranks", six_ranks_a_ray(ours(base))),
        whole=True,
    )
    alone, models = trained[: len(dedicated)], trained[len(dedicated) :]
    rows = [row for model in alone for row in model.rows]
    seconds = sum(model.seconds() for model in alone)
    took = {ALONE: f"{seconds:.0f} together"} | {model.name: f"{model.seconds():.0f}" for model in models}
    experiment.report(
        "prefixes against models of their own",
        [experiments.Variant(ALONE, rows), *models],
        reference=ALONE,
        extra={"seconds": took},
    )


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
