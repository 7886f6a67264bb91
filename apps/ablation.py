"""What υ and η do to TRaIn: ``python apps/ablation.py [FOLDER OF PHOTOGRAPHS]``.

SlimmeRF's section 3.5: the rank grows when a batch's loss changes by more than υ of itself, and more than η steps after
the last increase. Too low a υ is plain TensoRF, too high a one never fires. --quick takes a few minutes on two cores.
"""

import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import plain

from tslim import cli

UPSILONS, ETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (0, 50, 100, 200, 400, 600)
QUICK_UPSILONS, QUICK_ETAS = (0.05, 0.1, 0.2, 0.3), (0, 10, 30)
ETA_UPSILON = 0.1
"""υ of the runs with different η, as the paper's LLFF setting has it"""


def main(args: experiments.Options) -> None:
    """Trains one model a setting; a η is given in steps of a run of 30 000, and shortened as the run is."""
    experiment = experiments.Experiment("ablation", args)
    base = experiment.settings
    pairs = [(upsilon, 0) for upsilon in (QUICK_UPSILONS if args.quick else UPSILONS)]
    shorter = 1 if args.quick else base.steps / 30_000
    pairs += [(ETA_UPSILON, round(eta * shorter)) for eta in (QUICK_ETAS if args.quick else ETAS)]
    variants = experiment.train(
        *(
            Line(f"υ = {upsilon:g}, η = {eta}", plain(base, "train", upsilon=upsilon, eta=eta))
            for upsilon, eta in dict.fromkeys(pairs)
        )
    )
    reached = {variant.name: str(variant.reached()) for variant in variants}
    experiment.report("TRaIn by υ and η", variants, extra={"rank reached": reached})


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
