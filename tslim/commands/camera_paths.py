"""Cameras along the path that a model carries, as several commands render them."""

import re
from pathlib import Path
from typing import Any

from tslim.commands.console import Console
from tslim.errors import ConfigError
from tslim.scene import paths

DEFAULT_FRAMES = 120


def chosen_path(
    metadata: dict[str, Any], which: str, size: str | None, model: Path, console: Console
) -> paths.Orbit | paths.Spiral:
    """The path of a model by its name, or the one that suits its scene (``auto``), in the size asked for.

    Raises ``ConfigError`` for a path that the model does not know, or words that are no size.
    """
    # What the trainer notes is the path that suits the scene; ``train`` adds the others.
    own = metadata.get("path") or {}
    every = {**({own["path"]: own} if "path" in own else {}), **metadata.get("paths", {})}
    known = own if which == "auto" else every.get(which)
    if not known:
        raise ConfigError(f"{model} does not know a path {which}; it knows: {', '.join(every) or 'none'}")
    path = paths.path_from_dict(known)
    around = paths.path_from_dict(every["orbit"]) if "orbit" in every else None
    if isinstance(path, paths.Spiral) and isinstance(around, paths.Orbit):
        path = paths.spiral_on_one_side(path, around)  # files of earlier versions may hold one that shows nothing
    if isinstance(path, paths.Orbit) and own.get("path") == "spiral":
        console.warn("the cameras that it was trained on do not stand all around: much of an orbit is made up")
    return path if size is None else path.sized(parse_size(size))


def require_frames(frames: int | None) -> None:
    """Raises ``ConfigError`` unless that is a number of pictures, or none is asked for."""
    if frames is not None and frames < 1:
        raise ConfigError(f"--frames {frames}: expected 1 or more")


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from words like 800x600."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not match or not all(1 <= int(side) <= paths.LARGEST_SIDE for side in match.groups()):
        raise ConfigError(
            f"--size {text}: expected WIDTHxHEIGHT in pixels, such as 800x600, at most {paths.LARGEST_SIDE} a side"
        )
    return int(match[1]), int(match[2])
