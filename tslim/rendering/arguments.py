"""What callers hand to renderers, checked: ranks, the background, and how rays are sampled."""

from typing import Any

import numpy as np

from tslim.config import march_of
from tslim.errors import ConfigError, short
from tslim.field.field import Field
from tslim.rendering.pipeline import MarchConfig

WHITE = (1.0, 1.0, 1.0)
Background = tuple[float, float, float]


def ranks_of_rays(field: Field, rank: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The ranks of rays that come in this shape, flat and i32: one for all, one for each, or the field's if None.

    Raises ``ConfigError`` for other shapes, what is no whole number, and ranks that the field does not have.
    """
    asked = np.asarray(field.rank if rank is None else rank)
    if asked.dtype.kind not in "iu":
        raise ConfigError(f"rank {short(rank)}: expected a whole number, or one for each ray")
    if asked.ndim and asked.shape != tuple(shape):
        raise ConfigError(f"ranks {asked.shape}: expected one, or as many as rays, {tuple(shape)}")
    if asked.size and not (1 <= asked.min() and asked.max() <= field.rank):
        found = f"ranks {asked.min()} to {asked.max()}" if asked.ndim else f"rank {asked}"
        raise ConfigError(f"{found}: this field has ranks 1 to {field.rank}")
    return np.ascontiguousarray(np.broadcast_to(asked, shape).reshape(-1), np.int32)


def background_of(field: Field, background: Any) -> Background:
    """A colour behind a field: the field's own, else white, if None. Raises ``ConfigError`` for what is none."""
    if background is None:
        return field.background or WHITE
    try:
        red, green, blue = (float(c) for c in background)
    except (TypeError, ValueError):
        raise ConfigError(f"background {short(background)}: expected three numbers, as (1, 1, 1)") from None
    if not np.isfinite((red, green, blue)).all():
        raise ConfigError(f"background {short(background)}: expected three finite numbers")
    return red, green, blue


def sampling_of(field: Field, config: MarchConfig | None) -> MarchConfig:
    """How rays are sampled: as told, else as the field was trained, else the defaults.

    Raises ``ConfigError`` where the field's file says what makes no sense.
    """
    trained = field.metadata.get("march")
    return config or (MarchConfig(**march_of(trained)) if trained else MarchConfig())
