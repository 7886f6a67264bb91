"""``reorder``: the ranks of a trained model in order, so that it can be slimmed; and its prefixes trained further."""

from typing import TYPE_CHECKING

import numpy as np

from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Reorder
from tslim.errors import ConfigError
from tslim.measuring import evaluate
from tslim.model import model_file, ordering
from tslim.model.state import FieldState
from tslim.training import prefixes

if TYPE_CHECKING:
    from tslim.scene.scene import Scene

MEASURED_VIEWS = 10
"""Test views that are measured, at most."""


def reorder(args: Reorder, console: Console) -> None:
    """Writes the model with its ranks in order as a file of its own."""
    if args.steps is not None and args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: it must be above 0")
    read = [f"--{k.replace('_', '-')}" for k, v in vars(args.options).items() if v is not None]
    looks = args.scene is not None or args.steps is not None
    if read and not looks:
        raise ConfigError(f"{read[0]} has no effect here: only --scene and --steps look at photographs")
    source, folder = shared.find_model(args.model, console)
    shared.require_new_model(args.out, source)
    before = model_file.read(source)
    if made := shared.checkpoint_text(before):
        console.line(f"{source}: {made}")
    after = ordering.reordered(before)
    console.line(held_text(before, after))
    if looks:
        shared.start(args.arch, console)
        scene = shared.scene_of_model(before.metadata, folder, args.scene, args.options)
        shared.warn_about(scene, console)
        columns = {"as given": measured(before, scene), "reordered": measured(after, scene)}
        if args.steps is not None:
            after = trained(after, scene, args.steps, console)
            columns["trained further"] = measured(after, scene)
        ranks = list(columns["as given"])
        rows = [[str(rank), *(f"{column[rank]:.2f}" for column in columns.values())] for rank in ranks]
        console.table(["ranks", *(f"{name}, dB" for name in columns)], rows)
    precision = args.precision or before.precision
    model_file.write(model_file.convert(after, precision), args.out)
    console.written([args.out])


def held_text(before: FieldState, after: FieldState) -> str:
    """What reordering gained, in a line: how much of density and colour features half of the ranks hold."""
    half = max(1, after.rank // 2)
    (density, colours), (new_density, new_colours) = ordering.held(before), ordering.held(after)

    def share(held: np.ndarray) -> str:
        return f"{100 * held[min(half, len(held)) - 1]:.0f} %"

    return (
        f"ranks in order: {half} of {after.rank} hold {share(new_density)} of density instead of {share(density)}, "
        f"{share(new_colours)} of colour features instead of {share(colours)}"
    )


def measured(state: FieldState, scene: "Scene") -> dict[int, float]:
    """PSNR by rank, on some test views."""
    from tslim.field.field import Field

    views = scene.test.spread(MEASURED_VIEWS)
    return {row.rank: row.psnr for row in evaluate.rank_sweep(Field.from_state(state), views)}


def trained(state: FieldState, scene: "Scene", steps: int, console: Console) -> FieldState:
    """The field after its prefixes have been trained on the scene."""
    from tslim.field.field import Field
    from tslim.training.trainer import Trainer

    settings = prefixes.settings_for(state, steps)
    trainer = Trainer(Field.from_state(prefixes.with_rows(state)), scene, settings)
    with console.training(steps) as view:
        for event in trainer.run():
            view.show(event)
    return trainer.field.state()
