"""``render``: a video of a model, or pictures of it, without photographs or a display."""

import re
from dataclasses import replace
from typing import Any

from tslim.commands import shared
from tslim.commands.console import Console
from tslim.commands.options import Render
from tslim.errors import ConfigError, SceneError
from tslim.scene import paths
from tslim.scene.cameras import Cameras
from tslim.training.run_folder import RunFolder

DEFAULT_FRAMES = 120


def render(args: Render, console: Console) -> None:
    """Renders a video of a model, or pictures of it."""
    from tslim.data import parse_colour
    from tslim.rendering import media

    source, folder = shared.find_model(args.model, console)
    video = args.out.suffix.lower() in media.VIDEO_SUFFIXES
    if args.out.suffix and not video and args.out.suffix.lower() != ".png":
        raise ConfigError(f"{args.out}: ends in .mp4, .gif or .png, or has no suffix for a folder of pictures")
    if args.out.suffix:
        shared.require_writable(args.out)
    _check_render(args)
    shared.start(args.arch, console)
    from tslim.field.field import load

    field = load(source, rank=args.rank)
    cameras = _cameras_for(args, field.metadata, folder, console)
    if args.options.background is not None:
        field.domain = replace(field.domain, background=parse_colour(args.options.background))
    frames = media.render_frames(field, cameras, what=args.what)
    tracked = console.track(frames, "rendering", len(cameras))
    if video:
        media.write_video(args.out, tracked, fps=args.fps)
    elif args.out.suffix:
        media.write_png(args.out, next(iter(tracked)))
    else:
        for i, frame in enumerate(tracked):
            media.write_png(args.out / f"{i:04}.png", frame)
    console.written([args.out])


def _check_render(args: Render) -> None:
    """Raises ``ConfigError`` for options that would have no effect together."""
    single = args.out.suffix.lower() == ".png"
    if args.frames is not None and args.frames < 1:
        raise ConfigError(f"--frames {args.frames}: expected 1 or more")
    if single and args.frames not in (None, 1):
        raise ConfigError(f"{args.out} is one picture: for {args.frames} name a folder (no suffix) or a video (.mp4)")
    if args.path == "test":
        useless = [name for name in ("frames", "size") if getattr(args, name) is not None and not single]
        hint = "--path test renders the test views as they are (--downscale and --max-images make it less)"
    else:
        useless = [
            name for name in ("format", "downscale", "max_images", "space") if getattr(args.options, name) is not None
        ]
        useless += ["scene"] if args.scene is not None else []
        hint = "only --path test reads photographs"
    if useless:
        raise ConfigError(f"--{useless[0].replace('_', '-')} has no effect here: {hint}")


def _cameras_for(args: Render, metadata: dict[str, Any], folder: RunFolder | None, console: Console) -> Cameras:
    single = args.out.suffix.lower() == ".png"
    if args.path == "test":
        views = shared.scene_of_model(metadata, folder, args.scene, args.options).test
        if len(views) == 0:
            raise SceneError("this scene has no test views: use --path orbit or spiral")
        return views.cameras[:1] if single else views.cameras
    # What the trainer notes is the path that suits the scene; ``train`` adds the others.
    own = metadata.get("path") or {}
    every = {**({own["path"]: own} if "path" in own else {}), **metadata.get("paths", {})}
    known = own if args.path == "auto" else every.get(args.path)
    if not known:
        raise ConfigError(f"{args.model} does not know a path {args.path}; it knows: {', '.join(every) or 'none'}")
    path = paths.path_from_dict(known)
    if isinstance(path, paths.Spiral) and "orbit" in every:  # files of earlier versions may hold one that shows nothing
        path = paths.spiral_on_one_side(path, paths.path_from_dict(every["orbit"]))
    if isinstance(path, paths.Orbit) and own.get("path") == "spiral":
        console.warn("the cameras that it was trained on do not stand all around: much of an orbit is made up")
    if args.size is not None:
        path = path.sized(parse_size(args.size))
    return path.cameras(args.frames or (1 if single else DEFAULT_FRAMES))


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from words like 800x600."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not match or not all(1 <= int(side) <= paths.LARGEST_SIDE for side in match.groups()):
        raise ConfigError(f"size {text}: expected WIDTHxHEIGHT in pixels, such as 800x600")
    return int(match[1]), int(match[2])
