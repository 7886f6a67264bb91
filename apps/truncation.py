"""What is left of each way to train when ranks are dropped: ``python apps/truncation.py [FOLDER OF PHOTOGRAPHS]``.

The comparison of SlimmeRF, section 3.1: plain TensoRF, TRaIn (the paper's schedule), and what stands between them and
tslim's default. All trainings see the same number of rays. --quick takes a few minutes on two cores.
"""

import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import ours, plain

from tslim import cli


def main(args: experiments.Options) -> None:
    """Trains one model a schedule, and measures each at its prefixes."""
    experiment = experiments.Experiment("truncation", args)
    base = experiment.settings
    variants = [
        experiment.train("TensoRF", plain(base, "fixed")),
        experiment.train("TRaIn", plain(base, "train", upsilon=0.2 if args.quick else 0.4)),
        experiment.train("linear growth", plain(base, "linear")),
        experiment.train("all prefixes (CCNeRF)", plain(base, "all_prefixes")),
        experiment.train("staged (default)", ours(base)),
        experiment.train("bounded TRaIn", ours(base, policy="bounded", upsilon=0.2)),
    ]
    reached = {variant.name: str(variant.reached()) for variant in variants}
    experiment.report("ranks dropped after training", variants, extra={"rank reached": reached})


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
