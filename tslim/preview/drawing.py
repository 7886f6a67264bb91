"""When a picture of the field is due, how fine it is, and what it is composed of."""

import time
from collections.abc import Callable

import numpy as np

from tslim.preview.budget import Budget, Progression
from tslim.preview.controls import Controls
from tslim.preview.frame import History, compose
from tslim.preview.painter import Interrupted, Painter, Painting

STALE_SECONDS = 0.4
"""Most seconds that a picture of a field should cost while it goes on learning."""
RESERVE_SECONDS = 0.4
"""Seconds that are saved up for what the user may do next, so that it is seen at once."""
STILL_SECONDS = 0.4
"""Seconds after the last movement from which on the picture may become finer."""


class Drawing:
    """The picture of one field in a window of ``size``, of which the panel takes ``panel_width``.

    Attributes:
        painting: what was painted last; None before that.
        painted_step: the training step that it shows; -1 before that.
    """

    def __init__(self, painter: Painter, controls: Controls, budget: Budget) -> None:
        self.painter, self.controls, self.budget = painter, controls, budget
        self.progression = Progression()
        self.painting: Painting | None = None
        self.painted_step = -1
        self.size, self.panel_width = (0, 0), 0
        self._last_move = self._painted_at = float("-inf")

    # -- when --------------------------------------------------------------------------------------------------------

    def take_over_moves(self, now: float) -> None:
        """Starts anew, coarsely, if the user has changed what is to be seen."""
        controls = self.controls
        if controls.moved or controls.changed:
            self.progression.restart(self._pixels())
            self._last_move = now
            controls.moved = controls.changed = False

    def is_wanted(self, now: float, step: int) -> bool:
        """Whether a better or, at this step of training, newer picture could be drawn; decides its resolution."""
        progression = self.progression
        still = now - self._last_move > STILL_SECONDS
        if still and self.painted_step != step:
            if progression.done or self._cost() > STALE_SECONDS:
                progression.restart(self._pixels(), within=STALE_SECONDS)
        return not progression.done and (still or self._is_outdated)

    def may_paint(self) -> bool:
        """Whether the time budget has room: down to nothing for what the user asked for, else down to a reserve."""
        return self.budget.allows(self._cost() if self._is_outdated else self._cost() + RESERVE_SECONDS)

    def may_paint_whole(self) -> bool:
        """Whether the time budget has room for the finest picture."""
        return self.budget.allows(self.progression.cost(self._pixels()))

    @property
    def is_slow(self) -> bool:
        """Whether the next picture takes so long that it should be given up when the user moves on."""
        return self._cost() > 2 * self.progression.moving_seconds

    @property
    def _is_outdated(self) -> bool:
        """Whether the user has moved or chosen something that has not been drawn yet."""
        return self.painting is None or self._last_move > self._painted_at

    def _cost(self) -> float:
        """Expected seconds of the next picture."""
        return self.progression.cost(self._scaled_pixels())

    # -- how fine ----------------------------------------------------------------------------------------------------

    def _full_size(self) -> tuple[int, int]:
        width, height = self.size
        return self.painter.full_size(self.controls, (width - self._column(), height))

    def _column(self) -> int:
        return self.panel_width if self.controls.panel else 0

    def _pixels(self) -> int:
        """Pixels to render for the finest picture."""
        width, height = self._full_size()
        return width * height * self.painter.n_renders(self.controls)

    def _scaled_pixels(self) -> int:
        return round(self._pixels() * self.progression.scale**2)

    # -- the picture -------------------------------------------------------------------------------------------------

    def paint(self, step: int, unwanted: Callable[[], bool] = lambda: False) -> bool:
        """Renders at the progression's scale; False if it became ``unwanted`` on the way."""
        began = time.perf_counter()
        try:
            self.painting = self.painter.paint(self.controls, self._full_size(), self.progression.scale, unwanted)
        except Interrupted:
            return False
        self.progression.learn(self._scaled_pixels(), time.perf_counter() - began)
        self.progression.drawn()
        self.painted_step, self._painted_at = step, time.perf_counter()
        return True

    def paint_within(self, seconds: float, step: int) -> None:
        """Renders as finely as takes no longer than this."""
        self.progression.restart(self._pixels(), within=seconds)
        self.paint(step)

    def paint_whole(self) -> Painting:
        """The finest picture, for a file; what is shown stays."""
        return self.painter.paint(self.controls, self._full_size(), 1.0)

    def compose(self, history: History, lines: list[str]) -> np.ndarray:
        """The whole window's picture (h, w, 3) uint8: panes, the curves of training, and lines of text."""
        panes = self.painting.panes if self.painting else []
        return compose(panes, history, *self.size, column=self._column(), lines=lines)
