"""Loaders of posed photographs, one module a format, and the procedural scene that needs no data.

A format's module has ``RECOGNISED_BY`` (words for people), ``sniff(folder) -> bool`` (cheap; never raises on bad
contents) and ``load(folder, options) -> Capture`` (decodes nothing; raises ``SceneError`` with the file's name). What
comes after that is the same for all formats (``tslim.data.capture``).
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tslim.data import builtin, capture, orientation, spaces, unrecognised
from tslim.data.options import LoadOptions
from tslim.errors import SceneError
from tslim.scene.scene import SPACES, Scene, checked

FORMATS: dict[str, str] = {
    "blender": "tslim.data.blender",
    "transforms": "tslim.data.transforms",
    "llff": "tslim.data.llff",
    "nsvf": "tslim.data.nsvf",
    "colmap": "tslim.data.colmap",
}
"""Format name to module, in the order in which they are sniffed. Imported when first asked for."""

FILE_PATHS = ("inside", "anywhere")
"""Where photographs may lie that a data set names: in its folder, or elsewhere, too."""

COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def load_scene(
    path: str | Path,
    *,
    format: str | None = None,
    downscale: int = 1,
    background: str | Sequence[float] = "white",
    max_images: int | None = None,
    space: str | None = None,
    file_paths: str = "inside",
) -> Scene:
    """Reads a folder of posed photographs, or one ``transforms*.json`` of several in a folder.

    ``format`` is one of ``FORMATS`` or None to recognise it; ``downscale`` a whole number; ``background`` "white",
    "black", "#rrggbb" or three numbers in [0, 1]; ``space`` is "box", "ndc" or "contracted", or None for what suits the
    photographs; ``file_paths`` "anywhere" also reads photographs that are listed outside of the folder. Raises
    ``SceneError`` in one line for anything that cannot be used.
    """
    folder = Path(path)
    if format is not None and format not in FORMATS:
        raise SceneError(f"unknown format {format}; known: {known_formats()}")
    if downscale < 1 or downscale != int(downscale):
        raise SceneError(f"downscale {downscale}: expected a whole number of 1 or more")
    if max_images is not None and max_images < 1:
        raise SceneError(f"max images {max_images}: expected 1 or more")
    if space is not None and space not in SPACES:
        raise SceneError(f"space {space}: expected {', '.join(SPACES)}")
    if file_paths not in FILE_PATHS:
        raise SceneError(f"file paths {file_paths}: expected {' or '.join(FILE_PATHS)}")
    options = LoadOptions(int(downscale), parse_colour(background), max_images, space, file_paths)
    try:
        if not folder.exists():
            raise SceneError(f"{folder}: no such folder")
        if folder.is_file() and folder.suffix.lower() == ".json" and format in (None, "transforms"):
            options, folder, format = replace(options, listing=folder.name), folder.parent, "transforms"
        if not folder.is_dir():
            raise unrecognised.not_a_folder(folder)
        found = [format] if format is not None else sniffed(folder)
        read = _module(found[0]).load(folder, options)
        read = replace(read, warnings=(*read.warnings, *_other_descriptions(found)))
        return orientation.turned(checked(capture.developed(read, options)))
    except OSError as error:
        raise SceneError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None


def scene_from_settings(settings: Mapping[str, Any]) -> Scene:
    """The scene that a run's ``config.json`` describes: path, format, downscale, background, max_images, space,
    file_paths, and by name the photographs to train on and to measure on: train_views, test_views.

    The built-in scene where the path is missing or None; everything else may be missing or None, too. Raises
    ``SceneError`` as ``load_scene`` does.
    """
    scene = _whole_scene(settings)
    named = {split: settings.get(f"{split}_views") for split in ("train", "test")}
    chosen = {split: getattr(scene, split).named(names) for split, names in named.items() if names is not None}
    return replace(scene, **chosen)


def _whole_scene(settings: Mapping[str, Any]) -> Scene:
    """The same with all of its photographs."""
    chosen = {name: value for name, value in settings.items() if value is not None}
    downscale, background = chosen.get("downscale", 1), chosen.get("background", "white")
    format, most, space = chosen.get("format"), chosen.get("max_images"), chosen.get("space")
    if settings.get("path") is not None:
        return load_scene(
            settings["path"], format=format, downscale=downscale, background=background, max_images=most, space=space,
            file_paths=chosen.get("file_paths", "inside"),
        )  # fmt: skip
    if format is not None:
        raise SceneError(f"format {format} goes with a folder of photographs; the built-in scene has none")
    if not 1 <= downscale <= builtin.SIZE // 8:
        raise SceneError(f"downscale {downscale}: expected 1 to {builtin.SIZE // 8} for the built-in scene")
    if most is not None and most < 1:
        raise SceneError(f"max images {most}: expected 1 or more")
    colour = parse_colour(background)
    train, test = (n if most is None else min(n, most) for n in (builtin.TRAIN, builtin.TEST))
    scene = builtin.builtin_scene(size=builtin.SIZE // downscale, train=train, test=test)
    scene = scene.placed(background=colour)
    return scene if space is None else checked(spaces.in_space(scene, space))


def sniff_format(folder: str | Path) -> str:
    """The name of the format that a folder is read as; raises ``SceneError`` that lists the known ones."""
    return sniffed(Path(folder))[0]


def formats_of(folder: Path) -> list[str]:
    """The names of all formats that recognise a folder, in the order of ``FORMATS``; none for what is no folder."""
    return [name for name in FORMATS if _module(name).sniff(folder)] if folder.is_dir() else []


def sniffed(folder: Path) -> list[str]:
    """The names of all formats that recognise a folder, the one to read it as first; raises ``SceneError``.

    Several tools may have described one capture. The order of ``FORMATS`` decides, but for one pair: LLFF's
    ``poses_bounds.npy`` has neither lens nor centre nor points, so that the COLMAP model that it was made from goes
    before it where that has as many photographs.
    """
    found = formats_of(folder)
    if not found:
        raise unrecognised.error(folder, formats_of, known_formats())
    if found[0] == "llff" and "colmap" in found:
        known = _module("colmap").models(folder)
        if known and known[0].images >= _module("llff").count(folder):
            found = ["colmap", *(name for name in found if name != "colmap")]
    return found


def _other_descriptions(found: Sequence[str]) -> list[str]:
    """A warning for what else describes a capture; split files and transforms.json are read together."""
    others = [
        f"{name} ({_module(name).RECOGNISED_BY})" for name in found[1:] if found[0] != "blender" or name != "transforms"
    ]
    if not others:
        return []
    return [f"the capture is read as {found[0]}; --format reads what describes it, too: {', '.join(others)}"]


def known_formats() -> str:
    """The formats and what each is recognised by, in one line."""
    return "; ".join(f"{name} ({_module(name).RECOGNISED_BY})" for name in FORMATS)


def parse_colour(colour: str | Sequence[float]) -> tuple[float, float, float]:
    """Three sRGB numbers in [0, 1] from "white", "black", "#rrggbb" or three such numbers."""
    if isinstance(colour, str):
        if colour in COLOURS:
            return COLOURS[colour]
        if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
            return red, green, blue
    else:
        values = tuple(float(v) for v in colour)
        if len(values) == 3 and all(0 <= v <= 1 for v in values):
            return values
    raise SceneError(f"background {colour}: expected white, black, #rrggbb or three numbers between 0 and 1")


def _module(name: str) -> ModuleType:
    return importlib.import_module(FORMATS[name])
