"""Which values of the settings make sense."""

import dataclasses
from typing import Any

from tslim.config.settings import PATCH, FieldConfig, TrainConfig
from tslim.errors import ConfigError

_ABOVE_ZERO = (
    "steps", "batch_rays", "lr_factors", "lr_network", "lr_scales", "lr_decay", "lr_gains", "lr_poses",
    "unseen_rays", "point_rays", "regularize_every", "report_every", "checkpoint_every", "field.distance_scale",
)  # fmt: skip
_ZERO_OR_MORE = (
    "weight_threshold", "early_stop", "colour_span", "l1_start", "l1_rest", "tv_density", "tv_appearance",
    "distortion", "occlusion", "occlusion_range", "near_fade", "lr_first_ranks", "seed", "gain_weight",
    "unseen_occlusion", "unseen_depth", "unseen_spread", "point_depth", "anneal_share", "poses_from",
    "occupancy_threshold", "occupancy_first", "field.init_scale", "schedule.upsilon", "schedule.eta",
)  # fmt: skip
_BETWEEN = {
    "step_ratio": (0.01, 1000),
    "field.max_rank": (1, 256),
    "field.voxel_depth": (0.1, 20),
    "field.feature_encoding": (0, 10),
    "field.direction_encoding": (0, 10),
    "field.decoder_width": (16, 4096),
}


def require_valid(settings: TrainConfig) -> None:
    """Raises ``ConfigError`` in one line for a setting that makes no sense."""
    require_in_range(_flat(settings))
    if settings.batch_rays < 32:
        raise ConfigError(f"batch_rays is {settings.batch_rays}: pixels are sorted out 32 at a time, take 32 or more")
    if not 4 <= settings.grid_start <= settings.grid_end:
        raise ConfigError(
            f"grid_start {settings.grid_start} and grid_end {settings.grid_end}: 4 <= grid_start <= grid_end is needed"
            " (give both)"
        )
    if settings.unseen_depth and settings.unseen_rays < PATCH**2:
        raise ConfigError(
            f"unseen_rays is {settings.unseen_rays}: unseen_depth compares {PATCH} × {PATCH} neighbours, take "
            f"{PATCH**2} or more"
        )
    for name in ("grow_steps", "occupancy_steps"):
        steps = getattr(settings, name)
        if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
            raise ConfigError(f"{name} {' '.join(map(str, steps))}: step numbers from 1 on must grow")


def require_valid_field(field: FieldConfig) -> None:
    """Raises ``ConfigError`` in one line for what no field can be made of."""
    require_in_range(_flat(field, "field."))


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        is_group = dataclasses.is_dataclass(value)
        values |= _flat(value, f"{prefix}{f.name}.") if is_group else {prefix + f.name: value}
    return values


def require_in_range(values: dict[str, Any]) -> None:
    """Raises ``ConfigError`` for the first number that is out of its range; numbers are below 2^31 and finite."""
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) < 2**31:  # nor is NaN
                raise ConfigError(f"{name} is {number}: it must be a number below 2^31")
    for names, least in ((_ABOVE_ZERO, "above 0"), (_ZERO_OR_MORE, "0 or more")):
        for name in names:
            if name in values and not (values[name] > 0 or (values[name] == 0 and names is _ZERO_OR_MORE)):
                raise ConfigError(f"{name} is {values[name]}: it must be {least} and below 2^31")
    for name, (low, high) in _BETWEEN.items():
        if name in values and not low <= values[name] <= high:
            raise ConfigError(f"{name} is {values[name]}: it must be {low} to {high}")
