"""How much the preview may cost, and how large a picture that allows. Pure bookkeeping: time is passed in."""

import math
from dataclasses import dataclass, field

SCALES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Resolutions of the progressive picture, as fractions of the pane's sides."""


@dataclass
class Budget:
    """A share of wall time, saved up while nothing is drawn.

    Time spent in the preview is charged; a picture may be drawn when enough has been saved for it. Over any long
    stretch the share is kept; a saving of up to ``cap`` seconds lets a movement after a quiet while be smooth.
    """

    share: float = 0.10
    """of wall time; 1 or more means no limit"""
    cap: float = 1.0
    """most seconds that can be saved up"""
    saved: float = 0.0
    """seconds; negative after a picture that cost more than was saved"""
    spent: float = 0.0
    """seconds charged so far"""
    elapsed: float = 0.0
    """seconds watched so far, pauses left out"""
    _last: float | None = field(default=None, repr=False)

    def tick(self, now: float, *, free: bool = False) -> None:
        """Notes that time has passed; while ``free`` (training paused or finished) it costs and earns nothing."""
        if self._last is not None and not free:
            passed = max(now - self._last, 0.0)
            self.elapsed += passed
            self.saved = min(self.saved + self.share * passed, self.cap)
        self._last = now

    def charge(self, seconds: float) -> None:
        """Notes what the preview has cost."""
        self.spent += seconds
        self.saved -= seconds

    def allows(self, cost: float) -> bool:
        """Whether something of this expected cost may be done now.

        What costs more than can ever be saved may be done when the savings are full; the debt is then worked off.
        """
        return self.share >= 1 or self.saved >= min(cost, self.cap)

    @property
    def used(self) -> float:
        """Share of wall time spent so far, 0 to 1."""
        return self.spent / self.elapsed if self.elapsed > 0 else 0.0


@dataclass
class Progression:
    """Which resolution to draw next: coarse while something moves, finer by steps when it is still."""

    moving_seconds: float = 0.05
    """a picture while moving should cost no more than this"""
    _known: dict[int, float] = field(default_factory=dict, repr=False)
    """running mean of the seconds that pictures of about 4^k pixels have cost, by k"""
    _next: int = field(default=0, repr=False)

    def learn(self, pixels: int, seconds: float) -> None:
        """Notes what a picture has cost."""
        k = _size_class(pixels)
        self._known[k] = seconds if k not in self._known else 0.5 * (self._known[k] + seconds)

    def cost(self, pixels: int) -> float:
        """Expected seconds of a picture, at most.

        A picture costs something however small it is, and beyond that grows with its pixels. So a finer one costs no
        more than its pixels' share, a coarser one no more than the finer one did; the tightest of these bounds also
        corrects a size whose last picture was slow for another reason (kernels being compiled).
        """
        k = _size_class(pixels)
        bounds = (seconds * 4.0 ** max(k - known, 0) for known, seconds in self._known.items())
        return min(bounds, default=2e-6 * pixels)

    def restart(self, pixels: int, *, within: float | None = None) -> None:
        """The picture has to start anew, at the finest scale that costs no more than ``within`` seconds (by default
        ``moving_seconds``); ``pixels`` at full size."""
        within = self.moving_seconds if within is None else within
        quick = (i for i, s in enumerate(SCALES) if self.cost(round(pixels * s * s)) <= within)
        self._next = next(quick, len(SCALES) - 1)

    @property
    def done(self) -> bool:
        """Whether the finest picture has been drawn."""
        return self._next < 0

    @property
    def scale(self) -> float:
        """Resolution of the next picture."""
        return SCALES[max(self._next, 0)]

    def drawn(self) -> None:
        """The picture at ``scale`` is drawn; the next will be finer."""
        self._next -= 1


def _size_class(pixels: int) -> int:
    """k for about 4^k pixels."""
    return round(math.log(max(pixels, 1), 4))
