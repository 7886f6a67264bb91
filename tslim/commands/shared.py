"""What several commands need: the device, the model and the scene that a path means, and words for both."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tslim.commands.console import Console
from tslim.commands.options import SceneOptions, ServeOptions
from tslim.data import formats_of
from tslim.errors import ConfigError, RunFolderError, SceneError
from tslim.measuring.metrics import WINDOW
from tslim.model import model_file
from tslim.model.tensorf import TRAINED_BY
from tslim.scene.scene import Scene
from tslim.training.run_folder import RunFolder

SUFFIX = ".slim"

if TYPE_CHECKING:
    from tslim.model.header import ModelHeader
    from tslim.model.state import FieldState
    from tslim.model.stored import StoredState
    from tslim.preview.preview import Preview


def start(arch: str, console: Console, seed: int = 0) -> None:
    """Starts the device and says which one it is."""
    from tslim.device import backend

    console.fact("device", backend.init(arch, seed=seed))


def require_serving(args: ServeOptions) -> None:
    """Raises ``ConfigError`` for options of ``--serve`` that would have no effect, and for a number that is no port."""
    if args.serve is None and args.serve_host is not None:
        raise ConfigError("--serve-host has no effect without --serve")
    if args.serve is not None and not 0 <= args.serve <= 65535:
        raise ConfigError(f"--serve {args.serve}: a port is a number up to 65535")


def served_preview(args: ServeOptions, *, share: float) -> "Preview | None":
    """The preview for browsers that ``--serve`` asks for, if it does."""
    if args.serve is None:
        return None
    from tslim.preview.preview import Preview

    return Preview.serve(args.serve, args.serve_host, share=share)


def find_model(path: Path, console: Console) -> tuple[Path, RunFolder | None]:
    """The model file that a file's or run folder's path means, and the run folder if it was one.

    Of a run that has not finished, the model of its last checkpoint, which is said; so is a run whose settings are
    damaged or gone, and whose model is whole. Raises ``RunFolderError`` or ``ModelFileError`` if there is none.
    """
    if not path.exists():
        raise RunFolderError(f"{path}: no such run folder or model file")
    if path.is_file():
        if path.name in {kept.name for kept in RunFolder(path.parent).checkpoints.paths()}:
            raise RunFolderError(f"{path} is a checkpoint of training: name its run folder, {path.parent}")
        return path, None
    if not path.is_dir():
        raise RunFolderError(f"{path} is neither a file nor a folder")
    folder = RunFolder(path)
    if not folder.config.exists() and formats_of(path):
        raise RunFolderError(f"{path} holds photographs: name a run folder, or a model file (tslim train makes both)")
    require_run(folder, console)
    if folder.model.exists():
        return folder.model, folder
    if folder.unfinished.exists():
        done = model_file.read_header(folder.unfinished).metadata.get("steps", "?")
        console.warn(f"the run has not finished: this is its model after {done} steps")
        return folder.unfinished, folder
    raise RunFolderError(f"{path} holds no model yet: its run has not saved one (continue it with train --resume)")


def require_run(folder: RunFolder, console: Console) -> bool:
    """Whether a run's settings can be read. Raises ``RunFolderError`` if not, unless there is its model, which is said:
    it can do without."""
    folder.require_readable()
    try:
        folder.settings()
    except RunFolderError as error:
        if not folder.model.is_file():
            raise
        console.warn(f"{error}; {folder.model} is used by itself")
        return False
    return True


def results_of(source: Path, folder: RunFolder | None) -> RunFolder:
    """The folder that takes what ``eval`` measures of a model: its run's, or one beside a lone file."""
    return folder or RunFolder(source.with_name(f"{source.stem}-eval"))


def open_scene(where: str | Path | None, args: SceneOptions, remembered: dict[str, Any] | None = None):
    """Loads photographs, or makes the built-in scene where there is no path.

    ``args`` wins over ``remembered``, the record that ``scene_record`` made when the model was trained.
    """
    from tslim import data

    wanted = {**(remembered or {}), **{k: v for k, v in asdict(args).items() if v is not None}}
    return data.scene_from_settings({**wanted, "path": where})


def scene_record(where: Path | None, args: SceneOptions) -> dict[str, Any]:
    """What ``config.json`` keeps of a scene, enough to load it again from anywhere on this machine."""
    return {"path": str(where.resolve()) if where else None, **asdict(args)}


def scene_of_run(folder: RunFolder, where: Path | None, args: SceneOptions) -> Scene:
    """The scene that a run was trained on, or another one if ``where`` says so."""
    record = folder.settings()["scene"]
    moved = where is None and record.get("path") is not None and not Path(record["path"]).exists()
    if where is None:
        where = record.get("path")
    remembered = {k: v for k, v in record.items() if k != "path"}
    if moved:
        how = "tslim train NEW-PLACE --out RUN --resume, tslim eval RUN --scene NEW-PLACE"
        raise SceneError(
            f"the photographs of {folder.path} are not at {where} any more: say where they are now ({how})"
        )
    return open_scene(where, args, remembered)


def require_measurable(scene: Scene) -> None:
    """Raises ``SceneError`` if photographs are too small to be measured by what training ends with."""
    for views in (scene.train, scene.test):
        if len(views) and (least := int(views.cameras.sizes.min())) < WINDOW:
            raise SceneError(
                f"a photograph is {least} pixels wide or high: at least {WINDOW} are needed, to measure SSIM"
            )


def scene_of_model(metadata: dict[str, Any], folder: RunFolder | None, where: Path | None, args: SceneOptions) -> Scene:
    """The scene to compare a model with. Raises ``ConfigError`` if a model file without a run does not know it."""
    if folder is not None and folder.is_run():
        return scene_of_run(folder, where, args)
    if where is None and not metadata.get("built_in"):
        raise ConfigError("a model file does not hold its photographs: name their folder with --scene")
    return open_scene(where, args, metadata.get("scene_options"))


def warn_about(scene: Scene, console: Console) -> None:
    """Shows what the loader skipped or guessed."""
    for warning in scene.warnings:
        console.warn(warning)


def require_new_model(path: Path, source: Path) -> None:
    """Raises ``ConfigError`` or ``RunFolderError`` unless a model made of ``source`` can be written to ``path``."""
    if path.suffix.lower() != SUFFIX:
        raise ConfigError(f"-o {path}: what is written is a model file, whose name ends in {SUFFIX}")
    if path.exists() and path.samefile(source):
        raise RunFolderError(f"{path} is the model itself: choose another -o, so that it is not lost")
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raises ``RunFolderError`` if a file cannot be put at ``path``, or would take the place of one that a run keeps.

    So it is said before the work that would fill it is done.
    """
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if path.is_dir():
        raise RunFolderError(f"cannot write {path}: it is a folder")
    if not parent.is_dir():
        raise RunFolderError(f"cannot write {path}: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise RunFolderError(f"cannot write {path}: no permission in {parent}")
    run = RunFolder(path.parent)
    if run.config.exists() and path.name in {own.name for own in run.own_files()}:
        raise RunFolderError(f"{path} is a file of the run in {run.path}: choose another -o")


def require_new_folder(path: Path) -> None:
    """Raises ``RunFolderError`` unless pictures can go to the folder ``path`` without lying among other files."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"cannot write into {path}: it is a file (a folder is wanted, or a name with a suffix)")
    if path.is_dir() and any(path.iterdir()):
        raise RunFolderError(f"{path} is not empty: name a folder for the pictures that there is not yet")
    require_writable(path / "0000.png")


def rounding_text(model: "StoredState | ModelHeader") -> str:
    """How coarsely a compact model is rounded, in words to be appended to others; empty for other models."""
    known = model.precision == "compact" and "rounding" in model.metadata
    return f", rounded by {model.metadata['rounding']}" if known else ""


def checkpoint_text(model: "FieldState | ModelHeader") -> str:
    """Which program's checkpoint a model was read from, in words; empty for models of tslim's own."""
    by = model.metadata.get(TRAINED_BY)
    if by is None:
        return ""
    density, appearance = model.separate_ranks or (model.config.max_rank,) * 2
    return f"a checkpoint of {by}, {density} density and {3 * appearance} appearance components a mode at most"


def space_text(space: str, box: np.ndarray, near: float) -> str:
    """The space of a scene and where it lies, in words. ``box``: the innermost cube of a contracted space."""
    corners = f"{corner(box[0])} to {corner(box[1])}"
    if space == "ndc":
        return f"ndc: a forward-facing scene, {corners} beyond a near plane at {near:.3g}"
    if space == "contracted":
        return f"contracted: everything around the cube {corners}"
    return f"box: an object in {corners}"


def corner(values) -> str:
    """A point or a colour in words."""
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
