"""What a checkpoint must hold before any of it goes near a kernel: names, dtypes, shapes and ranges.

A kernel writes where the shapes that it is told of say. One array of another shape would make it write anywhere.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import config
from tslim.errors import ConfigError, ModelFileError
from tslim.field.factors import texels_of
from tslim.model.shared import MOST_CELLS
from tslim.training.events import RankGrew
from tslim.training.progress import Window
from tslim.training.watch import Watch

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer

_LEAST_SIDE = 2
_MOST_SIDE = 65_536


def settings_of(plain: dict[str, Any]) -> config.TrainConfig:
    """The settings of a checkpoint's run; raises ``ModelFileError`` if it holds none that make sense."""
    try:
        settings = config.from_dict(plain["config"])
        config.require_valid(settings)
        return settings
    except KeyError:
        raise _wrong("it holds no settings") from None
    except ConfigError as error:
        raise _wrong(str(error)) from error


def require_fitting(trainer: "Trainer", arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
    """Raises ``ModelFileError`` unless everything fits the trainer's settings and scene, and each other."""
    if plain.get("pixels") != trainer.sampler.n_pixels:
        raise ModelFileError(
            f"the checkpoint was trained on {plain.get('pixels')!r} pixels, this scene has {trainer.sampler.n_pixels}: "
            "name its photographs as they were"
        )
    if settings_of(plain) != trainer.config:
        raise ModelFileError("the checkpoint was trained with other settings")
    _require_plain(trainer, plain)
    grid = tuple(plain["grid"])
    wanted = _arrays_wanted(trainer, grid, plain["occupancy_cells"], sum(array.nbytes for array in arrays.values()))
    if missing := sorted(set(wanted) - set(arrays)):
        raise _wrong(f"it lacks the array {missing[0]}")
    for name, array in arrays.items():
        if name not in wanted:
            raise _wrong(f"it holds an array {name} that these settings do not have")
        dtype, shape = wanted[name]
        if array.dtype != dtype or array.shape != shape:
            raise _wrong(f"its array {name} is {array.dtype} {array.shape} where {dtype} {shape} is needed")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _wrong(f"its array {name} holds values that are not finite")
    for name in ("box", "occupancy_box"):
        if name in arrays and not (arrays[name][0] < arrays[name][1]).all():
            raise _wrong(f"its {name.replace('_', ' ')} has no volume")
    trainer.sampler.require_valid(arrays["sampler.used"], plain["sampler"]["position"])


def _arrays_wanted(
    trainer: "Trainer", grid: tuple[int, int, int], cells: list[int] | None, n_bytes: int
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape by name: those that the trainer would save on that grid, in about ``n_bytes``."""
    field = trainer.field
    if 4 * field.appearance.components * texels_of(grid) > n_bytes:
        raise _wrong(f"a grid of {grid} is more than it holds")
    for factors in (field.density, field.appearance):
        factors.fit(grid)
    trainer.optimizer.reset()
    wanted = {name: (array.dtype, array.shape) for name, array in trainer.optimizer.state().items()}
    wanted |= {f"sampler.{name}": (array.dtype, array.shape) for name, array in trainer.sampler.state()[0].items()}
    wanted["box"] = (np.dtype(np.float32), (2, 3))
    if trainer.refinement:
        wanted["poses"] = (np.dtype(np.float32), (len(trainer.scene.train), 3, 4))
    if cells:
        wanted["occupancy"] = (np.dtype(np.uint8), (-(-math.prod(cells) // 8),))
        wanted["occupancy_box"] = wanted["box"]
    return wanted


def _require_plain(trainer: "Trainer", plain: dict[str, Any]) -> None:
    """Types and ranges of everything that is not an array."""
    settings = trainer.config
    whole = {
        "step": (0, settings.steps),
        "lr_steps": (0, settings.steps),
        "adam_count": (0, settings.steps),
        "batch": (1, settings.batch_rays),
    }
    for name, (low, high) in whole.items():
        if not _is_whole(plain.get(name), low, high):
            raise _wrong(f"its {name} is {plain.get(name)!r}, expected {low} to {high}")
    for name in ("seconds", "l1"):
        if not _is_number(plain.get(name)) or plain[name] < 0:
            raise _wrong(f"its {name} is {plain.get(name)!r}")
    if type(plain.get("started")) is not bool:
        raise _wrong(f"its started is {plain.get('started')!r}")
    if not _are_sides(plain.get("grid"), _LEAST_SIDE):
        raise _wrong(f"its grid is {plain.get('grid')!r}")
    if "occupancy_cells" not in plain:
        raise _wrong("it does not say how many occupancy cells it has")
    cells = plain["occupancy_cells"]
    if cells is not None and (not _are_sides(cells, 1) or math.prod(cells) > MOST_CELLS):
        raise _wrong(f"its occupancy cells are {cells!r}")
    sampler = plain.get("sampler")
    if not isinstance(sampler, dict) or not all(_is_whole(sampler.get(n), 0, 2**62) for n in ("epoch", "position")):
        raise _wrong(f"its sampler is {sampler!r}")
    if not isinstance(plain.get("metadata"), dict):
        raise _wrong("its metadata is no object")
    quality, setbacks = plain.get("quality"), plain.get("setbacks", 0)
    if not (quality is None or _is_number(quality)) or not _is_whole(setbacks, 0, 100):
        raise _wrong(f"its quality is {quality!r}, its setbacks {setbacks!r}")
    if "window" in plain and not Window.is_valid(plain["window"], plain["step"], settings.field.max_rank):
        raise _wrong("its sums since the last report make no sense")
    if "watch" in plain and not Watch.is_valid(plain["watch"], settings.steps):
        raise _wrong(f"its watch is {plain['watch']!r}")
    names = {f.name for f in dataclasses.fields(RankGrew)}
    grew = plain.get("grew", [])
    if not isinstance(grew, list) or not all(
        isinstance(g, dict) and set(g) == names and _is_whole(g["step"], 0, settings.steps)
        and _is_whole(g["rank"], 1, settings.field.max_rank) and isinstance(g["cause"], str)
        for g in grew
    ):  # fmt: skip
        raise _wrong("its rank increases make no sense")
    try:
        trainer.schedule.require_valid(plain.get("schedule"))
    except ConfigError as error:
        raise _wrong(str(error)) from error


def _wrong(what: str) -> ModelFileError:
    return ModelFileError(f"the checkpoint makes no sense: {what}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _are_sides(values: Any, low: int) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(_is_whole(v, low, _MOST_SIDE) for v in values)
