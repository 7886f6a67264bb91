"""What is left of each way to train when ranks are dropped: ``python apps/truncation.py [FOLDER OF PHOTOGRAPHS]``.

The comparison of SlimmeRF, section 3.1: plain TensoRF, TRaIn (the paper's schedule), and what stands between them and
tslim's default. All trainings see the same number of rays. --quick takes a few minutes on two cores.
"""

import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import ordered, ours, plain

from tslim import cli


def main(args: experiments.Options) -> None:
    """Trains one model a schedule, and measures each at its prefixes."""
    experiment = experiments.Experiment("truncation", args)
    base = experiment.settings
    variants = experiment.train(
        Line("TensoRF", plain(base, "fixed")),
        Line("TRaIn", plain(base, "train", upsilon=0.2 if args.quick else 0.4)),
        Line("linear growth", plain(base, "linear")),
        Line("all prefixes (CCNeRF)", plain(base, "all_prefixes")),
        Line("staged (default in open spaces)", ours(base)),
        Line("ordered (default for objects)", ordered(base)),
        Line("bounded TRaIn", ours(base, policy="bounded", upsilon=0.2)),
    )
    reached = {variant.name: str(variant.reached()) for variant in variants}
    experiment.report("ranks dropped after training", variants, extra={"rank reached": reached})


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
