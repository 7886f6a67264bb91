"""Notices training that leads nowhere although every number is finite: colours stuck at black or white, a field that
has emptied or filled itself.

The measure is the picture of one colour: its squared error is the variance of the photographs' colours. A field that
shows them worse than that, for long, has learned nothing, or has lost what it knew.
"""

from typing import Any

LONG = 200
"""Steps after which it is no passing trouble, as when a grid grows."""
WORSE, KNEW = 1.1, 0.5
"""Times the error of the picture of one colour: what is worse than that, and what has learned something."""
FLOOR = 1e-2
"""Mean squared error (20 dB) below which a field is good enough whatever the photographs: they may be of one colour."""


class Watch:
    """Follows the reports of one training."""

    def __init__(self) -> None:
        self.steps = 0
        """in a row, until now, in which the field was worse than a picture of one colour"""
        self.learned = False
        """whether it was ever clearly better"""

    @property
    def is_lost(self) -> bool:
        """Whether that has lasted too long."""
        return self.steps >= LONG

    def look(self, loss: float, variance: float, steps: int) -> str | None:
        """Looks at a report: mean squared error of the rays, variance of their colours, steps that it is of.

        Returns what is wrong, when that has just lasted too long; else None.
        """
        before = self.is_lost
        worse = loss > max(WORSE * variance, FLOOR)
        self.steps = self.steps + steps if worse else 0
        self.learned = self.learned or loss < KNEW * variance
        if before or not self.is_lost:
            return None
        return (
            f"for {self.steps} steps the field has shown the photographs worse than one colour would (squared error "
            f"{loss:.2g}, one colour {variance:.2g})"
        )

    def state(self) -> list[Any]:
        """Plain data to continue from."""
        return [self.steps, self.learned]

    def load_state(self, plain: Any) -> None:
        """The inverse of ``state``."""
        self.steps, self.learned = plain

    @staticmethod
    def is_valid(plain: Any, steps: int) -> bool:
        """Whether ``load_state`` can continue from it, in a run of so many steps."""
        return isinstance(plain, list) and [type(value) for value in plain] == [int, bool] and 0 <= plain[0] <= steps
