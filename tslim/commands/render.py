"""``render``: a video of a model, or pictures of it, without photographs or a display."""

from dataclasses import replace
from typing import Any

from tslim.commands import camera_paths, shared
from tslim.commands.console import Console
from tslim.commands.options import Render
from tslim.errors import ConfigError, SceneError
from tslim.scene.cameras import Cameras
from tslim.training.run_folder import RunFolder


def render(args: Render, console: Console) -> None:
    """Renders a video of a model, or pictures of it."""
    from tslim.data import parse_colour
    from tslim.rendering import media

    source, folder = shared.find_model(args.model, console)
    video = args.out.suffix.lower() in media.VIDEO_SUFFIXES
    if args.out.suffix and not video and args.out.suffix.lower() != ".png":
        raise ConfigError(f"{args.out}: ends in .mp4, .gif or .png, or has no suffix for a folder of pictures")
    (shared.require_writable if args.out.suffix else shared.require_new_folder)(args.out)
    _check_render(args)
    shared.start(args.arch, console)
    from tslim.field.loading import load

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
    camera_paths.require_frames(args.frames)
    if args.fps < 1:
        raise ConfigError(f"--fps {args.fps}: expected 1 or more")
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
    path = camera_paths.chosen_path(metadata, args.path, args.size, args.model, console)
    return path.cameras(args.frames or (1 if single else camera_paths.DEFAULT_FRAMES))
