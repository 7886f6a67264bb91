"""Notices training that leads nowhere although every number is finite: colours stuck at black or white, a field that
has emptied or filled itself.

The measures are two pictures that need no training. That of one colour has the variance of the photographs' colours as
its squared error: a field that shows them worse than that, for long, has learned nothing, or has lost what it knew; one
that stays little better has learned little. That of the background alone is what an empty field shows: a field in which
there is something, and which is no closer to the photographs, is lost even if there was little time to learn. A
field that is still as empty as it began may only need more steps.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

LONG = 200
"""Steps that trouble must last before it counts: less may pass, as when a grid grows."""
WORSE, KNEW, LITTLE = 1.1, 0.5, 0.6
"""Errors relative to that of the picture of one colour: above WORSE a field is worse than that, below KNEW it has
learned something, above LITTLE it is little better."""
BACKGROUND, FILLED = 0.95, 0.2
"""A field is lost if its mean opacity was above FILLED and its error is above BACKGROUND times that of the background
alone: it shows something else than what was photographed."""
BETTER = 0.95
"""An error below so many times the least so far counts as getting better."""
FLOOR = 1e-2
"""Mean squared error (20 dB) below which a field is good enough whatever the photographs: they may be of one colour."""


@dataclass(frozen=True)
class Shown:
    """What a field shows in the steps of a report, as means over them."""

    loss: float
    """squared error of the rays"""
    variance: float
    """squared error of the picture of one colour"""
    unlike_background: float
    """squared error of the background alone"""
    opacity: float
    """of the rays"""

    @property
    def is_worse(self) -> bool:
        """Whether one colour would show more."""
        return self.loss > max(WORSE * self.variance, FLOOR)


class Watch:
    """Follows the reports of one training."""

    def __init__(self) -> None:
        self.steps = 0
        """in a row, until now, in which the field was worse than a picture of one colour"""
        self.learned = False
        """whether it was ever clearly better"""
        self.filled = False
        """whether there was ever something in the field"""
        self.best = math.inf
        """the least error so far, in errors of the picture of one colour"""
        self.stuck = 0
        """steps since that became less"""
        self.last: Shown | None = None
        """the last report"""

    @property
    def is_lost(self) -> bool:
        """Whether the field has been worse than a picture of one colour for too long."""
        return self.steps >= LONG

    def look(self, shown: Shown, steps: int) -> str | None:
        """Takes note of a report on so many steps. Returns what is wrong in the report with which it has lasted too
        long, else None.
        """
        before = self.is_lost
        self.last = shown
        self.steps = self.steps + steps if shown.is_worse else 0
        self.learned = self.learned or shown.loss < KNEW * shown.variance
        self.filled = self.filled or shown.opacity > FILLED
        error = shown.loss / max(shown.variance, 1e-9)
        if shown.loss < FLOOR or error < BETTER * self.best:
            self.best, self.stuck = min(error, self.best), 0
        else:
            self.stuck += steps
        if before or not self.is_lost:
            return None
        return (
            f"for {self.steps} steps the field has shown the photographs worse than one colour would (squared error "
            f"{shown.loss:.2g}, one colour {shown.variance:.2g})"
        )

    def verdict(self) -> str | None:
        """What to say of the model at the end of training, if anything is wrong."""
        shown = self.last
        no_closer = shown is not None and self.filled and shown.loss > BACKGROUND * shown.unlike_background
        if self.is_lost or (shown is not None and shown.is_worse and no_closer):
            return "the model makes no sense"
        if self.stuck >= LONG and self.best > LITTLE:
            return "the model shows the photographs little better than one colour would, and became no better"
        return None

    def state(self) -> list[Any]:
        """Plain data to continue from."""
        best = None if math.isinf(self.best) else self.best
        last = None if self.last is None else list(dataclasses.astuple(self.last))
        return [self.steps, self.learned, self.filled, best, self.stuck, last]

    def load_state(self, plain: Any) -> None:
        """The inverse of ``state``."""
        # Older checkpoints hold the first two, or all but the last.
        values = list(plain) + Watch().state()[len(plain) :]
        self.steps, self.learned, self.filled, best, self.stuck, last = values
        self.best = math.inf if best is None else best
        self.last = None if last is None else Shown(*last)

    @staticmethod
    def is_valid(plain: Any, steps: int) -> bool:
        """Whether ``load_state`` can continue from it, in a run of so many steps."""
        if not isinstance(plain, list) or len(plain) not in (2, 5, 6):
            return False
        values = plain + Watch().state()[len(plain) :]
        worse, learned, filled, best, stuck, last = values
        whole = all(type(n) is int and 0 <= n <= steps for n in (worse, stuck))
        numbers = [] if best is None else [best]
        if last is not None:
            if not isinstance(last, list) or len(last) != len(dataclasses.fields(Shown)):
                return False
            numbers += last
        sane = all(type(x) in (int, float) and 0 <= x < math.inf for x in numbers)
        return whole and sane and type(learned) is bool and type(filled) is bool
