"""``poses``: from photographs without cameras to a data set that ``train`` reads."""

from pathlib import Path

from tslim.commands.console import Console
from tslim.commands.options import Poses
from tslim.errors import ConfigError
from tslim.poses.images import is_video
from tslim.poses.mapping import Report, find_poses
from tslim.poses.options import PoseOptions

_STAGES = {
    "pictures": "collecting pictures",
    "features": "looking for features",
    "matching": "comparing pictures",
    "mapping": "placing cameras",
}


def poses(args: Poses, console: Console) -> None:
    """Finds cameras, shows how far it is, and says what was found and what to do next."""
    _find(args.source, args.out, args.options, console)
    console.line(f"next: tslim info {args.out} --plot cameras.png, then tslim train {args.out}")


def posed(source: Path | None, console: Console) -> Path:
    """For ``train --find-poses``: a data set made of photographs without cameras, or of a video, in a folder beside.

    It is called SOURCE-posed; where it is there already, its cameras are not looked for again. Raises ``ConfigError``
    without a source, or where it has cameras, and else as ``find_poses``.
    """
    from tslim.data import formats_of

    if source is None:
        raise ConfigError("--find-poses needs photographs: name their folder, or a video")
    if formats_of(source):
        raise ConfigError(f"{source} has cameras already: leave --find-poses out")
    name = source.stem if is_video(source) else source.absolute().name
    out = source.absolute().with_name(f"{name}-posed")
    if (out / "sparse" / "0").exists():
        console.fact("cameras", f"{out}, found before")
    else:
        _find(source, out, PoseOptions(), console)
        console.fact("cameras", out)
    return out


def _find(source: Path, out: Path, options: PoseOptions, console: Console) -> None:
    with console.stages() as shown:
        for event in find_poses(source, out, options):
            if not isinstance(event, Report):
                shown(_STAGES[event.stage], event.done, event.total)
                continue
            report = event
    for name in report.unreadable:
        console.warn(f"{name} cannot be decoded and was left out")
    for line in str(report).splitlines():
        console.line(line)
