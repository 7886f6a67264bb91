"""Training that diverges: how it is noticed, and how it goes back to the last checkpoint and learns more slowly."""

from typing import TYPE_CHECKING

import numpy as np

from tslim.device import buffers
from tslim.errors import DivergedError

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer

SLOWER, MOST_SETBACKS = 0.3, 3
"""Where training diverges, it goes back, and learning rates are multiplied by SLOWER; at most MOST_SETBACKS times."""

ADVICE = "it learns too fast or too slowly (--lr-factors, --lr-network), or cameras or photographs are wrong"
"""What is said of training that leads nowhere."""


def require_sense(trainer: "Trainer", losses: np.ndarray, *, parameters: bool) -> None:
    """Raises ``DivergedError`` if the losses of a batch are not finite or, with ``parameters``, those that all rays
    share.

    Planes and lines are not looked at: what goes wrong there shows after a step in what rays share.
    """
    wrong = None
    if not np.isfinite(losses.sum()):
        wrong = "the loss is not finite"
    elif parameters:
        shared = {p.name.replace("_", " "): p.value for p in trainer.optimizer.flat}
        if trainer.refinement:
            shared["poses"] = trainer.refinement.cameras
        lost = [name for name, array in shared.items() if not np.isfinite(buffers.read(array).sum())]
        wrong = f"the values of the {lost[0]} are not finite" if lost else None
    if wrong:
        raise DivergedError(wrong)


def lead_back(trainer: "Trainer", lost: str) -> str:
    """Where training leads nowhere (see ``watch``), goes back to the best checkpoint if the run had learned anything;
    returns what to say.
    """
    if trainer.watch.learned and trainer.folder is not None and trainer.folder.checkpoints.exist():
        return step_back(trainer, DivergedError(lost), best=True)
    return f"{lost}: {ADVICE}"


def step_back(trainer: "Trainer", error: DivergedError, *, best: bool = False) -> str:
    """Goes back to the last checkpoint, or from the second time on to the best, and lowers learning rates; returns what
    was done.

    Raises ``DivergedError`` if there is no checkpoint, or that was done too often.
    """
    lost, setbacks = trainer.step, trainer.setbacks + 1
    rates = f"--lr-factors (now {SLOWER**trainer.setbacks * trainer.config.lr_factors:g}) and --lr-network"
    advice = f"training has diverged at step {lost}: {error}; lower {rates}"
    if trainer.folder is None or not trainer.folder.checkpoints.exist():
        raise DivergedError(advice)
    if setbacks > MOST_SETBACKS:
        raise DivergedError(f"{advice}; the last good checkpoint is kept")
    arrays, plain, _ = trainer.folder.checkpoints.read(best=best or setbacks > 1)
    trainer.load_state(arrays, plain)
    trainer.setbacks = setbacks
    trainer.folder.rewind(trainer.step)
    return (
        f"training has diverged at step {lost} ({error}): it goes on from step {trainer.step}, with learning rates "
        f"{SLOWER**setbacks:.2g} times as high"
    )
