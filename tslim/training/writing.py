"""What a run leaves in its folder while it goes on: checkpoints, and the model as it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim.config import Precision
from tslim.errors import ConfigError, DivergedError, RunFolderError
from tslim.model import model_file
from tslim.training import checkpoint, saved_state
from tslim.training.divergence import step_back
from tslim.training.events import CheckpointSaved, Event, Warned

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer


def save_checkpoint(trainer: "Trainer", path: str | Path | None = None) -> Path:
    """Writes everything needed to continue with the same bits. By default it goes into the run folder, with the model
    as it is now.

    Raises:
        ConfigError: there is neither a path nor a run folder.
        DivergedError: something is not finite.
        RunFolderError: the file cannot be written.
    """
    folder = trainer.folder
    if path is not None:
        return checkpoint.save(path, *_finite_state(trainer))
    if folder is None:
        raise ConfigError("this trainer has no run folder: say where to save the checkpoint")
    arrays, plain = _finite_state(trainer)
    folder.preserve()
    saved = folder.checkpoints.save(arrays, plain)
    _write_model(trainer, folder.unfinished, "float16")
    return saved


def _finite_state(trainer: "Trainer") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and plain data of a checkpoint; raises ``DivergedError`` rather than save what is not finite."""
    arrays, plain = saved_state.state_of(trainer)
    lost = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if lost:
        raise DivergedError(f"training has diverged: {lost[0]} holds values that are not finite; nothing is saved")
    return arrays, plain


def save_model(trainer: "Trainer") -> Path:
    """Writes the trained model into the run folder, in place of the one of the last checkpoint.

    In the precision of the settings, or in single where values are too large for half. Raises as ``Field.save``;
    ``ConfigError`` without a folder.
    """
    if trainer.folder is None:
        raise ConfigError("this trainer has no run folder: save its field")
    trainer.folder.preserve()
    _write_model(trainer, trainer.folder.model, trainer.config.precision)
    trainer.folder.unfinished.unlink(missing_ok=True)
    return trainer.folder.model


def _write_model(trainer: "Trainer", path: Path, precision: Precision) -> None:
    state = trainer.field.state()
    wide = model_file.exceeds_half(state)
    model_file.write(model_file.convert(state, "float32" if wide else precision), path)


def attempt(trainer: "Trainer", write: Callable[..., Any], *args: Any) -> Iterator[Event]:
    """Calls ``write``, and turns a failure into a warning: a full disk is no reason to stop training. The same failure
    is not said twice in a row.

    ``DivergedError`` is treated as in training.
    """
    try:
        written = write(*args)
    except DivergedError as error:
        yield Warned(trainer.step, step_back(trainer, error))
        return
    except RunFolderError as error:
        if trainer.last_failure != str(error):
            trainer.last_failure = str(error)
            yield Warned(trainer.step, f"{error}; training goes on")
        return
    if isinstance(written, Path):
        yield CheckpointSaved(trainer.step, written)
