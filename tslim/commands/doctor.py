"""``doctor``: what works on this machine, and what to install."""

from tslim import doctor as examination
from tslim.commands.options import Doctor
from tslim.console import Console


def doctor(given: Doctor, console: Console) -> None:
    """Shows what ``tslim.doctor`` finds."""
    console.line(examination.text(examination.report()))
