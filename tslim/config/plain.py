"""Settings as plain data, as json files hold them, and back."""

import dataclasses
import typing
from typing import Any, Literal

from tslim.config.old_names import RENAMED
from tslim.config.ranges import require_in_range
from tslim.config.settings import MARCH, TrainConfig
from tslim.errors import ConfigError, short


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain data for json."""
    return dataclasses.asdict(config)


def from_dict(data: Any, cls: type = TrainConfig):
    """The inverse of ``to_dict``; absent names take their defaults.

    Raises ``ConfigError`` for unknown names, and for values of another type than the dataclass declares.
    """
    return cls(**_read(data, {f.name: f.type for f in dataclasses.fields(cls)}, cls.__name__))


def _read(data: Any, kinds: dict[str, Any], what: str) -> dict[str, Any]:
    """Plain data as values of the given kinds, by name."""
    if not isinstance(data, dict):
        raise ConfigError(f"{what} is {short(data)}, expected an object with {', '.join(kinds)}")
    data = {RENAMED[name] if RENAMED.get(name) in kinds else name: value for name, value in data.items()}
    unknown = sorted(set(data) - set(kinds))
    if unknown:
        raise ConfigError(f"unknown setting {short(unknown[0])}; known: {', '.join(kinds)}")
    return {name: _as_kind(value, kinds[name], name) for name, value in data.items()}


def _as_kind(value: Any, kind: Any, name: str) -> Any:
    """A value as json holds it, if it is of the kind."""
    choices, origin = typing.get_args(kind), typing.get_origin(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(value, kind)
    if origin is Literal:
        if isinstance(value, str) and value in choices:
            return value
        raise ConfigError(f"{name} is {short(value)}, expected one of {', '.join(choices)}")
    if origin is tuple and isinstance(value, list | tuple):
        if choices[-1] is not Ellipsis and len(value) != len(choices):
            raise ConfigError(f"{name} is {short(value)}, expected {len(choices)} numbers")
        return tuple(_as_kind(v, choices[0], name) for v in value)
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    raise ConfigError(f"{name} is {short(value)}, expected {words.get(kind, 'a list of numbers')}")


def march_of(data: Any) -> dict[str, float]:
    """The values of ``MARCH`` in plain data, checked as those of a command line; absent ones are left out.

    Raises ``ConfigError`` for other names, types and values.
    """
    kinds = {name: float for name in MARCH}
    values = _read(data, kinds, "march")
    require_in_range(values)
    return values
