"""What a model file says of itself beside its numbers, checked before anything believes it.

Values that are rendered with pass the same checks as those of the command line; others have the type that whoever reads
them expects. Names that are not known here are kept as they are.
"""

import math
from typing import Any

from tslim import config
from tslim.errors import ConfigError, short
from tslim.model import thumbnail
from tslim.scene import paths

_KINDS: dict[str, type | tuple[type, ...]] = {
    "scene": str,
    "format": str,
    "steps": int,
    "seconds": (int, float),
    "train": dict,
    "tslim": str,
    "built_in": bool,
    "scene_options": dict,
    "paths": dict,
    "cameras": list,
    "rounding": (int, float),
    "trained_by": str,
}


def checked(metadata: Any) -> dict[str, Any]:
    """The metadata; raises ``ConfigError`` or ``SceneError`` (``ValueError``s both) for what makes no sense."""
    if not isinstance(metadata, dict):
        raise ConfigError("metadata is no object")
    for name, kind in _KINDS.items():
        value = metadata.get(name)
        wrong = name in metadata and not isinstance(value, kind)
        if (
            wrong
            or (isinstance(value, bool) and kind is not bool)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            raise ConfigError(f"metadata {name} is {short(value)}")
    if "march" in metadata:
        config.march_of(metadata["march"])
    for path in [metadata.get("path") or {}, *metadata.get("paths", {}).values()]:
        if path != {}:
            paths.path_from_dict(path)
    if thumbnail.NAME in metadata:
        thumbnail.size_of(metadata[thumbnail.NAME])
    for name, value in metadata.get("scene_options", {}).items():
        if not isinstance(value, str | int | None):
            raise ConfigError(f"metadata scene_options.{name} is {short(value)}")
    for view in metadata.get("cameras", []):
        _require_view(view)
    return metadata


def _require_view(view: Any) -> None:
    """A start view of a page: name, pose (3 rows of 4), field of view in degrees."""
    if not isinstance(view, dict) or not isinstance(view.get("name"), str):
        raise ConfigError(f"metadata cameras has {short(view)}")
    pose, fov = view.get("pose"), view.get("fov")
    rows = pose if isinstance(pose, list) and len(pose) == 3 else []
    numbers = [v for row in rows if isinstance(row, list) and len(row) == 4 for v in row] + [fov]
    if (
        len(numbers) != 13
        or not all(type(v) in (int, float) and math.isfinite(v) for v in numbers)
        or not 0 < numbers[-1] < 180
    ):
        raise ConfigError(f"metadata cameras has {short(view)}")
