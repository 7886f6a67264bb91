"""Every setting (``settings``), which values make sense (``ranges``), and settings as plain data (``plain``).

The command line's flags and help, and the ``config.json`` of a run, all come from the dataclasses in ``settings``.
"""

from tslim.config.old_names import RENAMED, with_old_names
from tslim.config.plain import from_dict, march_of, to_dict
from tslim.config.ranges import require_in_range, require_valid, require_valid_field
from tslim.config.settings import (
    MARCH,
    PATCH,
    FieldConfig,
    Precision,
    ScheduleConfig,
    Space,
    TrainConfig,
    with_steps,
)

__all__ = [
    "MARCH",
    "PATCH",
    "RENAMED",
    "FieldConfig",
    "Precision",
    "ScheduleConfig",
    "Space",
    "TrainConfig",
    "from_dict",
    "march_of",
    "require_in_range",
    "require_valid",
    "require_valid_field",
    "to_dict",
    "with_old_names",
    "with_steps",
]
