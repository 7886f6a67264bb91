"""Ways to train that experiments compare: each makes the settings of a line of the table from those of all lines."""

import dataclasses
from typing import Any

from tslim import presets
from tslim.config import ScheduleConfig, TrainConfig


def plain(settings: TrainConfig, policy: str, **schedule: Any) -> TrainConfig:
    """TensoRF's field, without scales and shifts per rank, all of whose ranks learn at one rate, under a policy."""
    return dataclasses.replace(
        settings,
        lr_first_ranks=0.0,
        field=dataclasses.replace(settings.field, rank_scales=False),
        schedule=ScheduleConfig(policy=policy, **schedule),
    )


def ours(settings: TrainConfig, *, more_rays: float = 1.0, **schedule: Any) -> TrainConfig:
    """tslim's schedule in stages, that of the preset demo, scales and shifts per rank; ``more_rays`` times the rays."""
    return dataclasses.replace(
        settings,
        batch_rays=round(settings.batch_rays * more_rays),
        field=dataclasses.replace(settings.field, rank_scales=True),
        schedule=dataclasses.replace(presets.demo().schedule, **schedule),
    )


def ordered(settings: TrainConfig, *, more_rays: float = 1.0) -> TrainConfig:
    """As the preset quick for objects: all ranks, put in order, then prefix rays; scales and shifts per rank."""
    return dataclasses.replace(ours(settings, more_rays=more_rays), schedule=presets.quick().schedule)


def six_ranks_a_ray(settings: TrainConfig) -> TrainConfig:
    """The same pixels in as many steps, with every ray rendered at full rank and at five prefixes from rank 2 up.

    All ranks are there after 200 steps (or a third of a shorter run): every prefix goes on learning anyway. Errors at
    prefixes count for a quarter, since all six renders teach the first ranks, and half as much again at rank 2, which
    has least to be good with. Rank 1 would take from all others what it needs of their planes. Where so many renders
    say where to go, factors may start larger, the last ranks learn faster than those of a model that is never rendered
    at fewer, and so may what all ranks share and what each has of its own.
    """
    renders, growth = 6, min(1 / 3, 200 / settings.steps)
    return dataclasses.replace(
        settings,
        field=dataclasses.replace(settings.field, rank_scales=True, init_scale=2 * settings.field.init_scale),
        schedule=ScheduleConfig(
            policy="staged",
            stage_starts=tuple(round(growth * share, 4) for share in (0.0, 0.2, 0.36, 0.53, 0.7, 0.85, 1.0)),
            prefix_ranks=(2, 2, 2, 3, 4, 4, 4, 4, 6, 6, 8, 8, 10, 12, 12, 14),
            prefixes_per_ray=renders - 1,
            prefix_weight=0.25,
            lowest_weight=1.5,
        ),
        batch_decoded=renders * settings.batch_decoded,
        lr_factors=1.25 * settings.lr_factors,
        lr_first_ranks=max(settings.lr_first_ranks, 1.5 * settings.lr_factors),
        lr_network=1.5 * settings.lr_network,
        lr_scales=4 * settings.lr_scales,
    )
