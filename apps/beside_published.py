"""One file's sizes beside what others published: ``python apps/beside_published.py data/lego --models lego.slim``.

Measures models (``.slim``, ``.th``) on test views of the photographs, or takes what ``tslim eval`` measured
(``eval.json``, which needs no photographs); puts them beside the published points of the scene of that name, as a table
(Markdown, CSV) and a plot. ``--own-runs`` also trains what others do in tslim, at equal rays (on the built-in scene
where no photographs are named): TensoRF, cut as it is and put in order first; the same with its planes as a few
wavelet coefficients (a tenth more rays; needs PyWavelets); and CCNeRF's supervision of all prefixes. --quick takes a
few minutes on two cores.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import _checkout  # noqa: F401
import _experiments as experiments
import _wavelets as wavelets
import tyro
from _experiments import Line
from _recipes import ordered, plain

import tslim
from tslim import cli
from tslim.commands.console import Console
from tslim.data import parse_colour
from tslim.field.field import Field
from tslim.measuring import eval_json, evaluate
from tslim.measuring.evaluate import SweepRow
from tslim.model import model_file, ordering
from tslim.model.state import FieldState
from tslim.sweeps import beside
from tslim.sweeps.published import MEAN, published


@dataclass(frozen=True)
class Options(experiments.Options):
    """What the comparison can be told."""

    models: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """model files (measured on the photographs), or eval.json of models that were measured; published points are
    compared with the first"""
    name: Annotated[str | None, tyro.conf.arg(metavar="SCENE", help_behavior_hint="")] = None
    """whose published points: lego, chair, mic, ..., or mean; the name of the photographs' folder if not given"""
    own_runs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """also train what others do, in tslim"""


def main(args: Options) -> None:
    """Writes table and plot of measured curves beside published points."""
    measured_before = [path for path in args.models if path.suffix == ".json"]
    if not args.models and not args.own_runs:
        raise tslim.ConfigError("nothing to put beside the published: name --models, or ask for --own-runs")
    if args.scene is None and not args.own_runs and len(measured_before) < len(args.models):
        raise tslim.ConfigError("models are measured on photographs: name their folder")
    looks = args.scene is not None or args.own_runs
    experiment = experiments.Experiment("beside-published", args) if looks else None
    name = (args.name or (experiment.scene.name if experiment else "")).lower().removesuffix("_800")
    others = published([name], means=name == MEAN)
    if not others and not args.own_runs:
        raise tslim.ConfigError(f"nothing is published here of a scene {name!r}: say --name lego, chair, mic or mean")
    curves: dict[str, Sequence[SweepRow]] = {}
    notes = []
    for path in args.models:
        if path in measured_before:
            curves[path.parent.name], views = eval_json.read(path)
            notes.append(f"{path.parent.name}: as eval measured it on {views} views.")
        else:
            curves[path.stem] = measured(model_file.read(path), experiment)
    if args.own_runs:
        curves |= own_runs(experiment)
    if experiment is not None:
        (width, height), n = experiment.scene.train.cameras.sizes[0], len(experiment.views)
        notes.append(f"Measured here on {n} test views of {width}×{height} pixels.")
    notes.append("Published figures are of all 200 test views at 800×800: at other sizes differences say little.")
    folder = experiment.folder if experiment else args.out or Path("runs") / f"beside-published-{name}"
    on = background_name(
        experiment.scene.background if experiment else parse_colour(args.scene_options.background or "white")
    )
    written = beside.write(folder, curves, others, scene=name, background=on, setting=" ".join(notes))
    (experiment.console if experiment else Console()).written(written)


def measured(state: FieldState, experiment: experiments.Experiment, weighs: int | None = None) -> list[SweepRow]:
    """A model's rows on the experiment's views, in the bytes of its own precision; the one of all ranks alone, where
    ``weighs`` says how many bytes these have."""
    ranks = sorted({state.rank, *(rank for rank in experiments.RANKS if rank < state.rank and weighs is None)})
    sizes = model_file.sizes(state) if weighs is None else [weighs] * state.rank
    rows = []
    for row in evaluate.rank_sweep(Field.from_state(state), experiment.views, ranks, sizes=sizes):
        experiment.console.line(f"  {row}")
        rows.append(row)
    return rows


def own_runs(experiment: experiments.Experiment) -> dict[str, Sequence[SweepRow]]:
    """tslim's default, and what others do, trained with equal rays."""
    wavelets.pywavelets()  # before minutes of training
    base = experiment.settings
    ours, whole, every = experiment.train(
        Line("tslim", ordered(base)),
        Line("TensoRF", plain(base, "fixed")),
        Line("all prefixes (CCNeRF)", plain(base, "all_prefixes")),
        whole=True,
    )
    compact = model_file.convert(model_file.read(experiment.run("tslim").model), "compact")
    state = model_file.read(experiment.run("TensoRF").model)
    masked = []
    for share in wavelets.SHARES:
        sparse, weighs = wavelets.trained(state, experiment.scene, plain(base, "fixed"), share, base.steps // 10)
        masked += measured(sparse, experiment, weighs)
    return {
        "tslim, trained here": ours.rows,
        "tslim, compact, trained here": measured(compact, experiment),
        "TensoRF, cut, trained here": whole.rows,
        "TensoRF, put in order, cut, trained here": measured(ordering.reordered(state), experiment),
        "TensoRF in wavelets, trained here": masked,
        "all prefixes (CCNeRF), trained here": every.rows,
    }


def background_name(colour: tuple[float, float, float] | None) -> str:
    """White, black, or neither."""
    return {(1.0, 1.0, 1.0): "white", (0.0, 0.0, 0.0): "black"}.get(colour or (), "another colour")


if __name__ == "__main__":
    sys.exit(cli.experiment(main, Options))
