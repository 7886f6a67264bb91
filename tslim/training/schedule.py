"""What every rank schedule is: all ranks from the start, unless a policy says otherwise. Pure Python, no device.

A schedule is told each batch's loss and answers with the rank for the next step; it may also ask for some of a batch's
rays to be rendered at lower ranks (*prefix rays*), so that prefixes are trained as well, for some ranks to be left
as they are, and for ranks to be put in order.
"""

import math
from typing import Any

import numpy as np

from tslim.config import ScheduleConfig
from tslim.errors import ConfigError


class Schedule:
    """All ranks from the start, and the base of the others.

    Args:
        config: the settings; each policy reads its own.
        max_rank: where growth ends.
        steps: length of the run.
    """

    needs_loss = False
    """Whether ``update`` wants every batch's loss, which then has to be read back from the device each step."""

    def __init__(self, config: ScheduleConfig, max_rank: int, steps: int) -> None:
        self.config = config
        self.max_rank = max_rank
        self.steps = steps
        self.rank = self.first_rank()

    def first_rank(self) -> int:
        """The rank that training starts with."""
        return self.max_rank

    def update(self, step: int, loss: float | None) -> str | None:
        """Called after step ``step`` (from 0) with the mean squared error of its rays at the active rank.

        Returns why the rank grew, in words, or None if it did not.
        """
        return None

    def prefixes(self, step: int) -> tuple[float, tuple[int, ...]]:
        """Share of the rays of step ``step`` to render at a prefix, and the ranks to draw from (below the active)."""
        return 0.0, ()

    def rendered(self, step: int) -> tuple[int, ...]:
        """The ranks that step ``step`` renders, rising: what belongs to other ranks is not learned."""
        return tuple(sorted({*self.prefixes(step)[1], self.rank}))

    def emptied(self, step: int) -> list[int]:
        """Ranks at which space has to be empty to count as empty, rising: the active one and its trained prefixes.

        Some prefixes are left out, so that each is at least 1.5 times the one before: between them little differs.
        """
        spaced: list[int] = []
        for rank in sorted(self.prefixes(step)[1]):
            if not spaced or rank >= 1.5 * spaced[-1]:
                spaced.append(rank)
        return [*spaced, self.rank]

    def orders(self, done: int) -> bool:
        """Whether ranks are to be put in order (``tslim.model.ordering``) once ``done`` steps are done."""
        return False

    def pace(self, step: int, decay: float) -> float | None:
        """The factor of the learning rates at step ``step``, where they do not fall evenly by ``decay`` over the run;
        else None.
        """
        return None

    def learning(self, step: int) -> tuple[int, int]:
        """Which ranks step ``step`` changes: (first, last) for ranks first + 1 .. last. All active ones, usually."""
        return 0, self.rank

    def most_renders(self) -> int:
        """At how many ranks a ray is rendered, at most."""
        return 1

    def least_rank(self) -> int:
        """The lowest rank that anything is rendered at in the run: those below are never learned."""
        return self.first_rank()

    def ray_ranks(self, step: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """(times, n) i32: the ranks at which each of n rays is rendered. The last entries are the active rank."""
        ranks = np.full((1, n), self.rank, np.int32)
        share, choices = self.prefixes(step)
        if choices:
            n_prefix = round(share * n)
            ranks[0, :n_prefix] = rng.choice(np.asarray(choices, np.int32), n_prefix)
        return ranks

    def weights(self, ranks: np.ndarray) -> np.ndarray | None:
        """What the error of each render of ``ray_ranks`` counts for; None if all count for 1."""
        return None

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        return {"rank": self.rank}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``. Raises ``ConfigError`` for what ``state`` never is."""
        self.require_valid(state)
        for name in self.state():
            setattr(self, name, state[name])

    def require_valid(self, state: Any) -> None:
        """Raises ``ConfigError`` unless ``load_state`` can continue from it."""
        if not isinstance(state, dict) or set(state) != set(self.state()):
            raise ConfigError(f"the schedule's state is {state!r}, expected {', '.join(self.state())}")
        whole = {
            "rank": (1, self.max_rank),
            "last_increase": (-1, self.steps),
            "begun": (1, len(self.config.stage_starts)),
        }
        for name, value in state.items():
            low, high = whole.get(name, (0, 0))
            number = type(value) in (int, float) and math.isfinite(value)
            if not (type(value) is int and low <= value <= high if name in whole else value is None or number):
                raise ConfigError(f"the schedule's {name} is {value!r}")
