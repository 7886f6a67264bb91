"""``poses``: from photographs without cameras to a data set that ``train`` reads."""

from tslim.commands.console import Console
from tslim.commands.options import Poses
from tslim.poses.mapping import Report, find_poses

_STAGES = {
    "pictures": "collecting pictures",
    "features": "looking for features",
    "matching": "comparing pictures",
    "mapping": "placing cameras",
}


def poses(args: Poses, console: Console) -> None:
    """Finds cameras, shows how far it is, and says what was found and what to do next."""
    with console.stages() as shown:
        for event in find_poses(args.source, args.out, args.options):
            if not isinstance(event, Report):
                shown(_STAGES[event.stage], event.done, event.total)
                continue
            report = event
    for name in report.unreadable:
        console.warn(f"{name} cannot be decoded and was left out")
    for line in str(report).splitlines():
        console.line(line)
    console.line(f"next: tslim info {args.out} --plot cameras.png, then tslim train {args.out}")
