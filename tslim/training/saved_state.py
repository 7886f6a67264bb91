"""All that a run needs to go on with the same bits: from a trainer, and back into one."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim import config
from tslim.field.occupancy import Occupancy
from tslim.training.events import RankGrew
from tslim.training.state_checks import require_fitting
from tslim.training.watch import Watch

if TYPE_CHECKING:
    from tslim.training.trainer import Trainer

_RENAMED = {"affine": "rank_scales"}
"""Names that parameters had in older checkpoints, and what they are called now."""


def _with_present_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, by the names that they have now."""
    parts = ((*name.partition("."), array) for name, array in arrays.items())
    return {_RENAMED.get(kind, kind) + dot + rest: array for kind, dot, rest, array in parts}


def describe(trainer: "Trainer") -> None:
    """Writes down in the field where it comes from."""
    path = trainer.scene.default_path()
    trainer.field.metadata |= {
        "scene": trainer.scene.name,
        "format": trainer.scene.format,
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 1),
        "train": config.to_dict(trainer.config),
        "path": path.to_dict() if hasattr(path, "to_dict") else dataclasses.asdict(path),
    }
    names = trainer.scene.train.names
    if trainer.gains:
        trainer.field.metadata["gains"] = dict(zip(names, trainer.gains.host().round(4).tolist(), strict=True))
    if trainer.refinement:
        trainer.field.metadata["poses"] = dict(zip(names, trainer.refinement.poses().round(6).tolist(), strict=True))


def state_of(trainer: "Trainer") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and plain data that ``restore`` continues from exactly."""
    describe(trainer)
    field, optimizer = trainer.field, trainer.optimizer
    arrays = optimizer.state() | {"box": field.box}
    if trainer.refinement:
        arrays["poses"] = trainer.refinement.poses()
    if field.occupancy is not None:
        occupied = np.packbits(field.occupancy.to_cells(), bitorder="little")
        arrays |= {"occupancy": occupied, "occupancy_box": field.occupancy.box}
    sampler_arrays, sampler = trainer.sampler.state()
    plain = {
        "config": config.to_dict(trainer.config),
        "step": trainer.step,
        "seconds": trainer.seconds,
        "lr_steps": trainer.lr_steps,
        "adam_count": optimizer.count,
        "l1": trainer.l1,
        "started": trainer.started,
        "batch": trainer.n_pixels,
        "grid": list(field.grid),
        "occupancy_cells": list(field.occupancy.cells) if field.occupancy else None,
        "schedule": trainer.schedule.state(),
        "grew": [dataclasses.asdict(event) for event in trainer.grew],
        "sampler": sampler,
        "pixels": trainer.sampler.n_pixels,
        "quality": trainer.quality,
        "setbacks": trainer.setbacks,
        "window": trainer.window.state(),
        "watch": trainer.watch.state(),
        "metadata": field.metadata,
    }
    return arrays | {f"sampler.{k}": v for k, v in sampler_arrays.items()}, plain


def restore(trainer: "Trainer", arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
    """Continues from ``state_of``. Raises ``ModelFileError`` if it belongs to other photographs, or fits neither the
    settings nor itself."""
    arrays = _with_present_names(arrays)
    require_fitting(trainer, arrays, plain)
    field, optimizer = trainer.field, trainer.optimizer
    grid = tuple(plain["grid"])
    field.domain = field.domain.with_box(arrays["box"])
    for factors in (field.density, field.appearance):
        factors.fit(grid)
        factors.clear()
    optimizer.reset()
    optimizer.load_state(arrays)
    optimizer.count = plain["adam_count"]
    if plain["occupancy_cells"]:
        size = tuple(reversed(plain["occupancy_cells"]))
        bits = np.unpackbits(arrays["occupancy"].view(np.uint8), count=math.prod(size), bitorder="little")
        field.occupancy = Occupancy.from_cells(bits.reshape(size), arrays["occupancy_box"])
    if trainer.refinement:
        trainer.refinement.set_poses(arrays["poses"])
    trainer.schedule.load_state(plain["schedule"])
    sampler_arrays = {k.removeprefix("sampler."): v for k, v in arrays.items() if k.startswith("sampler.")}
    trainer.sampler.load_state(sampler_arrays, plain["sampler"])
    field.metadata = plain["metadata"]
    trainer.step, trainer.seconds = plain["step"], plain["seconds"]
    trainer.set_rank()
    trainer.lr_steps, trainer.l1, trainer.started = plain["lr_steps"], plain["l1"], plain["started"]
    trainer.n_pixels = plain["batch"]
    trainer.grew = [RankGrew(**event) for event in plain.get("grew", [])]
    trainer.quality, trainer.setbacks = plain.get("quality"), plain.get("setbacks", 0)
    trainer.window = trainer.new_window()
    if "window" in plain:
        trainer.window.load_state(plain["window"])
    trainer.watch = Watch()
    if "watch" in plain:
        trainer.watch.load_state(plain["watch"])
