"""What ``export`` writes for other programs: checkpoints, meshes, point clouds, cameras, depth, sequences."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tslim.commands import camera_paths, shared
from tslim.commands.console import Console
from tslim.commands.options import Export
from tslim.errors import ConfigError
from tslim.model.stored import StoredState
from tslim.scene.cameras import Cameras
from tslim.scene.paths import Orbit, Spiral, path_of
from tslim.training.run_folder import RunFolder

if TYPE_CHECKING:
    from tslim.field.field import Field

RINGS = (-35.0, -5.0, 25.0, 60.0)
"""degrees of elevation from which an object is seen for a point cloud"""
RING_VIEWS = 12
PATH_VIEWS = 24
"""cameras along the path from which other scenes are"""
VIEW_SIDE = 400


def checkpoint(
    args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console
) -> list[Path]:
    """A checkpoint that the public code of TensoRF reads."""
    from tslim.model import tensorf_write

    if state.metadata.get("march", {}).get("colour_span"):
        console.warn(
            "the model was trained with colours that near samples share (colour_span); TensoRF decodes each by itself: "
            "that can cost a dB and more; train with --colour-span 0 for checkpoints"
        )
    return [tensorf_write.write(state, args.out)]


def shape(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """A mesh with colours at its vertices, or a cloud of coloured points."""
    what = args.what or "mesh"
    if what == "points" and args.out.suffix.lower() != ".ply":
        raise ConfigError(f"{args.out}: points are written as .ply")
    if what == "points" and args.level is not None:
        raise ConfigError("--level has no effect on points: it is where a mesh lies")
    field = _field(args, state, console)
    from tslim.exporting.mesh_files import write_mesh
    from tslim.exporting.points import points
    from tslim.exporting.surface import LEVEL, surface

    path = path_of(field, field.metadata)
    if what == "mesh":
        made = surface(field, grid=args.grid, level=LEVEL if args.level is None else args.level)
        console.line(f"{len(made.vertices)} vertices, {len(made.faces)} triangles")
    else:
        cameras = _cameras_around(path)
        with console.counter("looking", len(cameras)) as count:
            made = points(field, cameras, grid=args.grid, on_view=count)
        console.line(f"{len(made.vertices)} points")
    return [write_mesh(made, args.out, up=path.up)]


def cameras(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """The model's camera path as a ``transforms.json``."""
    from tslim.exporting.sequence import write_transforms

    return [write_transforms(_on_path(args, state, console, camera_paths.DEFAULT_FRAMES), args.out)]


def depth(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """Depth along the path: of one view as a 16-bit PNG, or of all in an array."""
    import numpy as np

    single = args.out.suffix.lower() == ".png"
    if single and args.frames not in (None, 1):
        raise ConfigError(f"{args.out} is one picture: for {args.frames} name a folder (no suffix) or an array (.npy)")
    cameras = _on_path(args, state, console, 1)
    field = _field(args, state, console)
    from tslim.exporting import sequence
    from tslim.rendering.renderer import Renderer

    renderer = Renderer(field)
    views = console.track(range(len(cameras)), "rendering", len(cameras))
    found = np.stack([sequence.axial_depth(renderer.render(cameras, i), cameras, i) for i in views])
    if not single:
        return [sequence.write_depth_npy(args.out, found)]
    unit = sequence.unit_for(float(found.max(initial=0)))
    console.line(f"depth is along the camera's axis; 1 in the picture is {unit:g} world units, 0 is nothing")
    return [sequence.write_depth_png(args.out, found[0], unit)]


def sequence(args: Export, state: StoredState, source: Path, folder: RunFolder | None, console: Console) -> list[Path]:
    """A folder with the pictures along the path, their depth and their cameras."""
    cameras = _on_path(args, state, console, camera_paths.DEFAULT_FRAMES)
    field = _field(args, state, console)
    from tslim.exporting.sequence import write_sequence

    for _ in console.track(write_sequence(field, cameras, args.out), "rendering", len(cameras)):
        pass
    return [args.out]


def _field(args: Export, state: StoredState, console: Console) -> "Field":
    shared.start(args.arch, console)
    from tslim.field.field import Field

    return Field.from_state(state)


def _on_path(args: Export, state: StoredState, console: Console, frames: int) -> Cameras:
    camera_paths.require_frames(args.frames)
    path = camera_paths.chosen_path(state.metadata, args.path or "auto", args.size, args.model, console)
    return path.cameras(args.frames or frames)


def _cameras_around(path: Orbit | Spiral) -> Cameras:
    """Cameras that see an object from all sides, or what the path shows of another scene."""
    if not isinstance(path, Orbit):
        return path.cameras(PATH_VIEWS)
    path = path.sized((VIEW_SIDE, VIEW_SIDE))
    return Cameras.concatenate([dataclasses.replace(path, elevation=e).cameras(RING_VIEWS) for e in RINGS])
