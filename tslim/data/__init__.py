"""Loaders of posed photographs, one module a format, and the procedural scene that needs no data.

A format's module has ``RECOGNISED_BY`` (words for people), ``sniff(folder) -> bool`` (cheap; never raises on bad
contents) and ``load(folder, options) -> Scene`` (raises ``SceneError`` with the file's name).
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tslim.data import builtin, orientation, spaces
from tslim.errors import SceneError
from tslim.poses.photographs import pictures_in
from tslim.scene.scene import Scene, checked

FORMATS: dict[str, str] = {
    "blender": "tslim.data.blender",
    "transforms": "tslim.data.transforms",
    "llff": "tslim.data.llff",
    "nsvf": "tslim.data.nsvf",
    "colmap": "tslim.data.colmap",
}
"""Format name to module, in the order in which they are sniffed. Imported when first asked for."""

COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass(frozen=True)
class LoadOptions:
    """What the user asked of a loader."""

    downscale: int = 1
    """load images this many times smaller in each direction"""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """colour behind transparent pixels, sRGB in [0, 1]"""
    max_images: int | None = None
    """use at most so many evenly spaced images of each split"""


def load_scene(
    path: str | Path,
    *,
    format: str | None = None,
    downscale: int = 1,
    background: str | Sequence[float] = "white",
    max_images: int | None = None,
    space: str | None = None,
) -> Scene:
    """Reads a folder of posed photographs.

    ``format`` is one of ``FORMATS`` or None to recognise it; ``downscale`` a whole number; ``background`` "white",
    "black", "#rrggbb" or three numbers in [0, 1]; ``space`` is "box", "ndc" or "contracted", or None for what suits the
    cameras. Raises ``SceneError`` in one line for anything that cannot be used.
    """
    folder = Path(path)
    if format is not None and format not in FORMATS:
        raise SceneError(f"unknown format {format}; known: {known_formats()}")
    if downscale < 1 or downscale != int(downscale):
        raise SceneError(f"downscale {downscale}: expected a whole number of 1 or more")
    if max_images is not None and max_images < 1:
        raise SceneError(f"max images {max_images}: expected 1 or more")
    options = LoadOptions(int(downscale), parse_colour(background), max_images)
    try:
        if not folder.exists():
            raise SceneError(f"{folder}: no such folder")
        if not folder.is_dir():
            raise SceneError(f"{folder}: not a folder; give the folder that holds the images and poses")
        scene = _module(format or sniff_format(folder)).load(folder, options)
        return orientation.turned(checked(scene if space is None else spaces.in_space(scene, space)))
    except OSError as error:
        raise SceneError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None


def scene_from_settings(settings: Mapping[str, Any]) -> Scene:
    """The scene that a run's ``config.json`` describes: path, format, downscale, background, max_images, space.

    The built-in scene where the path is missing or None; everything else may be missing or None, too. Raises
    ``SceneError`` as ``load_scene`` does.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    downscale, background = given.get("downscale", 1), given.get("background", "white")
    format, most, space = given.get("format"), given.get("max_images"), given.get("space")
    if settings.get("path") is not None:
        return load_scene(
            settings["path"], format=format, downscale=downscale, background=background, max_images=most, space=space
        )
    if format is not None:
        raise SceneError(f"format {format} goes with a folder of photographs; the built-in scene has none")
    if not 1 <= downscale <= builtin.SIZE // 8:
        raise SceneError(f"downscale {downscale}: expected 1 to {builtin.SIZE // 8} for the built-in scene")
    if most is not None and most < 1:
        raise SceneError(f"max images {most}: expected 1 or more")
    colour = parse_colour(background)
    train, test = (n if most is None else min(n, most) for n in (builtin.TRAIN, builtin.TEST))
    scene = builtin.builtin_scene(size=builtin.SIZE // downscale, train=train, test=test)
    scene = replace(scene, background=colour)
    return scene if space is None else checked(spaces.in_space(scene, space))


def sniff_format(folder: str | Path) -> str:
    """The name of the first format that recognises the folder; raises ``SceneError`` that lists the known ones."""
    for name in FORMATS:
        if _module(name).sniff(Path(folder)):
            return name
    pictures = pictures_in(Path(folder))
    if pictures:
        raise SceneError(
            f"{folder} holds {len(pictures)} pictures, but no cameras of a known format: find them with "
            f"'tslim poses {folder} -o NEW_FOLDER', then train on that; known: {known_formats()}"
        )
    raise SceneError(f"{folder}: unknown format; known: {known_formats()}")


def known_formats() -> str:
    """The formats and what each is recognised by, in one line."""
    return "; ".join(f"{name} ({_module(name).RECOGNISED_BY})" for name in FORMATS)


def parse_colour(colour: str | Sequence[float]) -> tuple[float, float, float]:
    """Three sRGB numbers in [0, 1] from "white", "black", "#rrggbb" or three such numbers."""
    if isinstance(colour, str):
        if colour in COLOURS:
            return COLOURS[colour]
        if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    else:
        values = tuple(float(v) for v in colour)
        if len(values) == 3 and all(0 <= v <= 1 for v in values):
            return values
    raise SceneError(f"background {colour}: expected white, black, #rrggbb or three numbers between 0 and 1")


def _module(name: str) -> ModuleType:
    return importlib.import_module(FORMATS[name])
