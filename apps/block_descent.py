"""Does block coordinate descent over ranks train at all? ``python apps/block_descent.py [FOLDER OF PHOTOGRAPHS]``.

The baseline of SlimmeRF's section 3.6, of which the paper says that it fluctuates too much to report: blocks of four
ranks learn in turn, all ranks render. Fluctuation is the mean change of the training rays' PSNR from one report to the
next over the second half of training. --quick takes a few minutes on two cores.
"""

import sys

import _checkout  # noqa: F401
import _experiments as experiments
from _experiments import Line
from _recipes import ours, plain

from tslim import cli


def fluctuation(variant: experiments.Variant) -> str:
    """Mean of |change of PSNR| between neighbouring reports of the second half, dB."""
    psnr = [row["psnr"] for row in variant.history][len(variant.history) // 2 :]
    changes = [abs(b - a) for a, b in zip(psnr, psnr[1:], strict=False)]
    return f"{sum(changes) / max(len(changes), 1):.3f}"


def main(args: experiments.Options) -> None:
    """Trains block descent with short and long turns beside plain TensoRF and growth in stages."""
    experiment = experiments.Experiment("block-descent", args)
    base = experiment.settings
    lines = [Line("TensoRF", plain(base, "fixed"))]
    for turn in sorted({1, max(base.steps // 60, 1), max(base.steps // 12, 1)}):
        name = "a turn every step" if turn == 1 else f"turns of {turn} steps"
        lines.append(Line(name, plain(base, "bcd", bcd_steps=turn)))
    variants = experiment.train(*lines, Line("staged", ours(base)))
    swing = {variant.name: fluctuation(variant) for variant in variants}
    experiment.report("block coordinate descent", variants, extra={"fluctuation (dB)": swing})


if __name__ == "__main__":
    sys.exit(cli.experiment(main, experiments.Options))
