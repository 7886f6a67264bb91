"""Names that settings had in older versions, which files and command lines may still use."""

import dataclasses
import functools
import operator
from typing import TypeVar

_Settings = TypeVar("_Settings")

RENAMED = {
    "stop_transmittance": "early_stop",
    "anchors": "prefix_ranks",
    "rank_affine": "rank_scales",
    "lr_affine": "lr_scales",
    "occlusion_reach": "occlusion_range",
}
"""Names that settings had, in files and on command lines that are older, and what they are called now."""


def with_old_names(cls: type[_Settings]) -> type[_Settings]:
    """A dataclass that takes and gives values by their old names, too."""
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    old_names = {old: new for old, new in RENAMED.items() if new in names}
    made = cls.__init__

    @functools.wraps(made)
    def init(self, *args, **values) -> None:
        made(self, *args, **{**{n: v for n, v in values.items() if n not in old_names},
                             **{old_names[n]: v for n, v in values.items() if n in old_names}})  # fmt: skip

    cls.__init__ = init  # type: ignore[method-assign]
    for old, new in old_names.items():
        setattr(cls, old, property(operator.attrgetter(new)))
    return cls
