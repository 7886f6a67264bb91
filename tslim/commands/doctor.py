"""``doctor``: what works on this machine, and what to install."""

from tslim.commands.console import Console
from tslim.commands.options import Doctor
from tslim.device import doctor as examination


def doctor(args: Doctor, console: Console) -> None:
    """Shows what ``tslim.device.doctor`` finds."""
    console.line(examination.text(examination.report()))
