"""What the commands do. Each takes its options (``options.py``), and speaks through a ``Console``."""

import contextlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tslim import model_file, options, paths
from tslim.cameras import Cameras
from tslim.console import Console
from tslim.errors import ConfigError, RunFolderError, SceneError, TslimError
from tslim.files import replacing
from tslim.run_folder import RunFolder
from tslim.scene import Scene

DEFAULT_FRAMES = 120
BUILT_IN = "built-in"
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def run(given: Any) -> int:
    """Runs the command whose options are given; returns the exit code."""
    from tslim import evaluation_command, slim_command, training_command

    console = Console()
    actions = {
        options.Train: training_command.train,
        options.Eval: evaluation_command.evaluate,
        options.Slim: slim_command.slim,
        options.Render: render,
        options.View: view,
        options.Info: info,
        options.Doctor: doctor,
    }
    return actions[type(given)](given, console) or 0


# What several commands need


def start(arch: str, console: Console, seed: int = 0) -> None:
    """Starts the device and says which one it is."""
    from tslim import backend

    console.fact("device", backend.init(arch, seed=seed))


def find_model(path: Path) -> tuple[Path, RunFolder | None]:
    """The model file that a file's or run folder's path means, and the run folder if it was one.

    Raises ``RunFolderError`` or ``ModelFileError`` if there is none.
    """
    if not path.exists():
        raise RunFolderError(f"{path}: no such run folder or model file")
    if path.is_file():
        return path, None
    folder = RunFolder(path)
    folder.settings()
    if not folder.model.exists():
        raise RunFolderError(f"{path} holds no model yet: its run has not finished (continue it with train --resume)")
    return folder.model, folder


def open_scene(where: str | Path | None, given: options.SceneOptions, remembered: dict[str, Any] | None = None):
    """Loads photographs, or makes the built-in scene where there is no path.

    ``given`` wins over ``remembered``, the record that ``scene_record`` made when the model was trained.
    """
    from tslim import data

    wanted = {**(remembered or {}), **{k: v for k, v in asdict(given).items() if v is not None}}
    return data.scene_from_settings({**wanted, "path": where})


def scene_record(where: Path | None, given: options.SceneOptions) -> dict[str, Any]:
    """What ``config.json`` keeps of a scene, enough to load it again from anywhere on this machine."""
    return {"path": str(where.resolve()) if where else None, **asdict(given)}


def scene_of_run(folder: RunFolder, where: Path | None, given: options.SceneOptions) -> Scene:
    """The scene that a run was trained on, or another one if ``where`` says so."""
    record = folder.settings()["scene"]
    if where is None:
        where = record.get("path")
    remembered = {k: v for k, v in record.items() if k != "path"}
    return open_scene(where, given, remembered)


def scene_of_model(
    metadata: dict[str, Any], folder: RunFolder | None, where: Path | None, given: options.SceneOptions
) -> Scene:
    """The scene to compare a model with. Raises ``ConfigError`` if a lone model file does not know it."""
    if folder is not None:
        return scene_of_run(folder, where, given)
    if where is None and not metadata.get("built_in"):
        raise ConfigError("a model file does not hold its photographs: name their folder with --scene")
    return open_scene(where, given, metadata.get("scene_options"))


def space_text(scene: Scene) -> str:
    """The space of a scene and where it lies, in words."""
    return _space_text(scene.space, scene.box, scene.near)


def warn_about(scene: Scene, console: Console) -> None:
    """Shows what the loader skipped or guessed."""
    for warning in scene.warnings:
        console.warn(warning)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from words like 800x600."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not match or not all(1 <= int(side) <= 16384 for side in match.groups()):
        raise ConfigError(f"size {text}: expected WIDTHxHEIGHT in pixels, such as 800x600")
    return int(match[1]), int(match[2])


def require_writable(path: Path) -> None:
    """Raises ``RunFolderError`` if a file cannot be put at ``path``, before the work that would fill it is done."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if path.is_dir():
        raise RunFolderError(f"cannot write {path}: it is a folder")
    if not parent.is_dir():
        raise RunFolderError(f"cannot write {path}: {parent} is a file")


# The commands


def render(given: options.Render, console: Console) -> None:
    """Films a model, or takes pictures of it."""
    from tslim import media
    from tslim.data import parse_colour

    source, folder = find_model(given.model)
    film = given.out.suffix.lower() in media.FILM_SUFFIXES
    if given.out.suffix and not film and given.out.suffix.lower() != ".png":
        raise ConfigError(f"{given.out}: ends in .mp4, .gif or .png, or has no suffix for a folder of pictures")
    if given.out.suffix:
        require_writable(given.out)
    _check_render(given)
    start(given.arch, console)
    from tslim.field import Field

    field = Field.from_state(model_file.read(source, rank=given.rank))
    cameras = _cameras_for(given, field.metadata, folder)
    if given.options.background is not None:
        field.background = parse_colour(given.options.background)
    frames = media.render_frames(field, cameras, what=given.what)
    tracked = console.track(frames, "rendering", len(cameras))
    if film:
        media.write_video(given.out, tracked, fps=given.fps)
    elif given.out.suffix:
        media.write_png(given.out, next(iter(tracked)))
    else:
        for i, frame in enumerate(tracked):
            media.write_png(given.out / f"{i:04}.png", frame)
    console.wrote([given.out])


def view(given: options.View, console: Console) -> None:
    """Shows a model in a window until it is closed."""
    source, folder = find_model(given.model)
    start(given.arch, console)
    from tslim import preview
    from tslim.field import Field

    field = Field.from_state(model_file.read(source))
    scene = None
    if folder is not None or field.metadata.get("built_in"):
        # Photographs to compare with are welcome but not needed.
        with contextlib.suppress(TslimError):
            scene = scene_of_model(field.metadata, folder, None, options.SceneOptions())
    for line in preview.view(field, scene=scene, folder=folder.path if folder else source.parent):
        console.line(line)


def info(given: options.Info, console: Console) -> None:
    """Says what a path holds."""
    is_scene = not given.path.is_file() and not (given.path / "config.json").is_file()
    if given.plot is not None and not is_scene:
        raise ConfigError(f"--plot draws a data set's cameras, and {given.path} is a model or a run")
    if given.plot is not None and given.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot {given.plot}: expected a name that ends in {', '.join(PLOT_SUFFIXES)}")
    if given.path.is_file():
        _model_info(given.path, console)
    elif (given.path / "config.json").is_file():
        _run_info(RunFolder(given.path), console)
    else:
        scene = open_scene(given.path, given.options)
        _scene_info(scene, console)
        if given.plot is not None:
            from tslim.plots_scene import plot_scene

            with replacing(given.plot) as path:
                plot_scene(scene, path)
            console.line(f"cameras, box and points are drawn in {given.plot}")


def doctor(given: options.Doctor, console: Console) -> int:
    """Shows what works on this machine, and what to install."""
    from tslim import doctor

    sections = doctor.report()
    console.line(doctor.text(sections))
    return 0


def _check_render(given: options.Render) -> None:
    """Raises ``ConfigError`` for options that would have no effect together."""
    single = given.out.suffix.lower() == ".png"
    if given.frames is not None and given.frames < 1:
        raise ConfigError(f"--frames {given.frames}: expected 1 or more")
    if single and given.frames not in (None, 1):
        raise ConfigError(f"{given.out} is one picture: for {given.frames} name a folder (no suffix) or a film (.mp4)")
    if given.path == "test":
        useless = [name for name in ("frames", "size") if getattr(given, name) is not None and not single]
        hint = "--path test renders the test views as they are (--downscale and --max-images make it less)"
    else:
        useless = [
            name for name in ("format", "downscale", "max_images", "space") if getattr(given.options, name) is not None
        ]
        useless += ["scene"] if given.scene is not None else []
        hint = "only --path test reads photographs"
    if useless:
        raise ConfigError(f"--{useless[0].replace('_', '-')} has no effect here: {hint}")


def _cameras_for(given: options.Render, metadata: dict[str, Any], folder: RunFolder | None) -> Cameras:
    single = given.out.suffix.lower() == ".png"
    if given.path == "test":
        views = scene_of_model(metadata, folder, given.scene, given.options).test
        if len(views) == 0:
            raise SceneError("this scene has no test views: use --path orbit or spiral")
        return views.cameras[:1] if single else views.cameras
    # What the trainer notes is the path that suits the scene; ``train`` adds the others.
    own = metadata.get("path") or {}
    every = {**({own["path"]: own} if "path" in own else {}), **metadata.get("paths", {})}
    known = own if given.path == "auto" else every.get(given.path)
    if not known:
        raise ConfigError(f"{given.model} does not know a path {given.path}; it knows: {', '.join(every) or 'none'}")
    path = paths.path_from_dict(known)
    if given.size is not None:
        path = replace(path, size=parse_size(given.size))
    return path.cameras(given.frames or (1 if single else DEFAULT_FRAMES))


def _model_info(path: Path, console: Console) -> None:
    header = model_file.read_header(path)
    kept = header.metadata
    rows: list[tuple[str, object]] = [
        ("ranks", header.rank if header.kept is None else "{} of density, {} of appearance".format(*header.kept)),
        ("size", f"{header.n_bytes / 1e6:.2f} MB ({header.dtype})"),
        ("each rank", f"{header.rank_bytes / 1e6:.3f} MB; decoder and occupancy {header.fixed_bytes / 1e6:.3f} MB"),
        ("grid", "×".join(map(str, header.grid))),
        ("space", _space_text(header.space, header.box if header.cube is None else header.cube, header.near)),
        ("ray limits", f"{header.near:g} to {header.far:g}"),
        ("decoder", header.config.decoder),
        ("background", "none" if header.background is None else _corner(header.background)),
    ]
    if "scene" in kept:
        rows.append(("trained on", f"{kept['scene']} ({kept.get('format', '?')})"))
    if "steps" in kept:
        rows.append(("training", f"{kept['steps']} steps in {kept.get('seconds', 0):.0f} s"))
    if "path" in kept:
        rows.append(("camera path", kept["path"].get("path", "?")))
    console.facts_table(rows, title=str(path))


def _run_info(folder: RunFolder, console: Console) -> None:
    settings = folder.settings()
    history = folder.history()
    rows: list[tuple[str, object]] = [("scene", settings["scene"].get("path") or BUILT_IN)]
    if history:
        last = history[-1]
        done, steps = last["step"], settings["train"].get("steps")
        rows.append(("progress", f"step {done} of {steps}, rank {last['rank']}, PSNR {last['psnr']:.2f} dB"))
        rows.append(("time", f"{last['seconds']:.0f} s"))
    else:
        rows.append(("progress", "nothing logged yet"))
    rows.append(("model", folder.model if folder.model.exists() else "not yet; continue with train --resume"))
    console.facts_table(rows, title=str(folder.path))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(folder.evaluation.read_text(encoding="utf-8"))
        for row in found["rows"]:
            console.line(
                f"  rank {row['rank']:>3}  {row['bytes'] / 1e6:6.2f} MB  {row['psnr']:.2f} dB  SSIM {row['ssim']:.4f}"
            )
    if folder.model.exists():
        _model_info(folder.model, console)


def _scene_info(scene: Scene, console: Console) -> None:
    sizes = {f"{w}×{h}" for w, h in scene.train.cameras.sizes.tolist()}
    console.facts_table(
        [
            ("format", scene.format),
            ("views", f"{len(scene.train)} to train, {len(scene.test)} to test"),
            ("size", ", ".join(sorted(sizes)[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")),
            ("space", space_text(scene)),
            ("ray limits", f"{scene.near:g} to {scene.far:g}"),
            ("lenses", _lenses(scene)),
            ("points", "none" if scene.points is None else f"{len(scene.points)}"),
            ("background", "none" if scene.background is None else _corner(scene.background)),
        ],
        title=str(scene.source),
    )
    warn_about(scene, console)


def camera_paths(scene: Scene) -> dict[str, dict[str, Any]]:
    """The orbit and spiral that suit a scene, as plain data; what the cameras do not allow is left out."""
    found = {}
    for name, make in (("orbit", scene.orbit_path), ("spiral", scene.spiral_path)):
        with contextlib.suppress(TslimError):
            found[name] = make().to_dict()
    return found


def _space_text(space: str, box: np.ndarray, near: float) -> str:
    corners = f"{_corner(box[0])} to {_corner(box[1])}"
    if space == "ndc":
        return f"ndc: a forward-facing scene, {corners} beyond a near plane at {near:.3g}"
    if space == "contracted":
        return f"contracted: everything around the cube {corners}"
    return f"box: an object in {corners}"


def _lenses(scene: Scene) -> str:
    names = ("pinhole", "radial-tangential", "fisheye")
    return ", ".join(names[kind] for kind in sorted(set(scene.train.cameras.lens.tolist())))


def _corner(values) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
