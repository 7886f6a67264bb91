"""Training the prefixes of a field that has been trained: settings for a short run in which nothing else changes."""

import dataclasses

import numpy as np

from tslim import config, presets
from tslim.config import ScheduleConfig
from tslim.errors import ConfigError
from tslim.model.state import N_FEATURES, SCALES_WIDTH, FieldState


def with_rows(state: FieldState) -> FieldState:
    """The field with scales and shifts per rank, which change nothing where it had none."""
    if state.rank_scales is not None:
        return state
    row = np.zeros(SCALES_WIDTH, np.float32)
    row[0] = row[2 : 2 + N_FEATURES] = 1
    changed = dataclasses.replace(state.config, rank_scales=True)
    return dataclasses.replace(state, config=changed, rank_scales=np.tile(row, (state.rank, 1)))


def settings_for(state: FieldState, steps: int) -> config.TrainConfig:
    """How the prefixes of a trained field learn: four rays in ten at prefixes; all ranks, grid and box are there.

    What the field remembers of its own training says how rays are sampled and what is penalised; a field from elsewhere
    is sampled as the preset ``fine`` does it. Ranks get scales and shifts of their own.

    Raises ``ConfigError`` for fewer than 1 step, or a field of one rank.
    """
    if state.rank < 2:
        raise ConfigError("a model of one rank has no smaller sizes to train")
    try:
        base = config.from_dict(state.metadata["train"])
        config.require_valid(base)
    except (KeyError, TypeError, AttributeError, ConfigError):
        base = presets.fine(state.space)
    side = max(4, round((state.grid[0] * state.grid[1] * state.grid[2]) ** (1 / 3)))
    quick = presets.quick(state.space)
    return dataclasses.replace(
        base,
        field=dataclasses.replace(state.config, rank_scales=True),
        schedule=ScheduleConfig(policy="staged", stage_ranks=(state.rank,), stage_starts=(0.0,), prefix_share=0.4),
        steps=steps,
        batch_rays=quick.batch_rays,
        batch_decoded=presets.fine(state.space).batch_decoded,
        lr_factors=0.04,
        lr_first_ranks=0.0,
        lr_network=3e-3,
        lr_decay=0.1,
        lr_scales=5e-3,
        lr_reset_on_grow=False,
        lazy_adam=True,
        grid_start=side,
        grid_end=side,
        grow_steps=(),
        occupancy_steps=tuple(sorted({max(1, steps // 100), max(1, steps // 50)})),
        occupancy_first=0.0,
        l1_start=base.l1_rest,
    )
