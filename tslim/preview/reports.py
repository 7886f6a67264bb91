"""What browsers report, checked word by word: nothing that they send can be but a movement or a choice."""

import math
from typing import Any

from tslim.preview.controls import CHANNELS
from tslim.preview.window import BUTTONS, KEYS

LEAST_SIDE, MOST_SIDE = 64, 4096
MOST_REPORTS = 64
"""Most reports in one message."""
_FLAGS = {*CHANNELS, "follow", "compare", "set", "pause", "reset", "save", "snapshot", "leave"}
_NUMBERS = {"rank": (1, 256), "view": (0, 1_000_000), "percent": (1, 100)}


def checked(message: Any) -> list[dict]:
    """Reports as ``Controls.apply`` takes them, from a message that claims to be a list of such.

    Raises ``ValueError`` for anything else.
    """
    if not isinstance(message, list) or not 0 < len(message) <= MOST_REPORTS:
        raise ValueError(f"not a list of 1 to {MOST_REPORTS} reports")
    return [_report(report) for report in message]


def _report(report: Any) -> dict:
    if not isinstance(report, dict):
        raise ValueError("a report is an object")
    known = {"size", "cursor", "buttons", "held", "pressed", "panel", "dt", "zoom"}
    if set(report) - known:
        raise ValueError("a report has something unknown")
    return {
        "size": [round(_number(v, LEAST_SIDE, MOST_SIDE)) for v in _list(report["size"], 2)],
        "cursor": [_number(v, 0, 1) for v in _list(report["cursor"], 2)],
        "buttons": _words(report["buttons"], BUTTONS),
        "held": _words(report["held"], KEYS),
        "pressed": _words(report["pressed"], KEYS),
        "panel": _panel(report["panel"]),
        "dt": _number(report["dt"], 0, 1),
        "zoom": _number(report.get("zoom", 0), -8, 8),
        "cpu": 0.0,
    }


def _panel(values: Any) -> dict:
    if not isinstance(values, dict) or set(values) - (_FLAGS | set(_NUMBERS)):
        raise ValueError("a widget that there is not")
    chosen: dict[str, bool | int] = {}
    for name, value in values.items():
        if name in _FLAGS:
            if not isinstance(value, bool):
                raise ValueError(f"{name} is true or false")
            chosen[name] = value
        else:
            chosen[name] = round(_number(value, *_NUMBERS[name]))
    return chosen


def _number(value: Any, low: float, high: float) -> float:
    """Within its bounds; what is a little beyond them is not worth a refusal."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return min(max(value, low), high)


def _list(values: Any, n: int) -> list:
    if not isinstance(values, list) or len(values) != n:
        raise ValueError(f"not a list of {n}")
    return values


def _words(values: Any, known: tuple[str, ...]) -> list[str]:
    if not isinstance(values, list) or len(values) > MOST_REPORTS or not all(value in known for value in values):
        raise ValueError("not a list of known names")
    return values
