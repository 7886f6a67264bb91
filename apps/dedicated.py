"""Is a prefix as good as a model of its own? ``python apps/dedicated.py [FOLDER OF PHOTOGRAPHS]``.

A model is trained at each rank alone, as TensoRF would be; and one model of all ranks, by tslim's default, whose
prefixes are measured: once with as many rays as each of the others had, once with 1.5 times as many. --quick takes a
few minutes on two cores.
"""

import dataclasses
import sys

import _checkout  # noqa: F401

from tslim import cli, experiments
from tslim.experiments import ours, plain

ALONE = "a model of that rank alone"


def main(given: experiments.Options) -> None:
    """Trains seven models, and sets the prefixes of two against the five others."""
    experiment = experiments.Experiment("dedicated", given)
    base = experiment.settings
    alone = []
    for rank in (2, 4, 8, 12, 16):
        settings = plain(base, "fixed")
        settings = dataclasses.replace(settings, field=dataclasses.replace(settings.field, max_rank=rank))
        alone += experiment.train(f"alone {rank}", settings, ranks=(rank,)).rows
    variants = [
        experiments.Variant(ALONE, alone),
        experiment.train("one model, same rays", ours(base)),
        experiment.train("one model, 1.5 x rays", ours(base, more_rays=1.5)),
    ]
    experiment.report("prefixes against models of their own", variants, reference=ALONE)


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
