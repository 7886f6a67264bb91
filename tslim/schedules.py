"""Rank schedules: the policies that set the active rank while training. Pure Python, no device.

A schedule is told each batch's loss and answers with the rank for the next step; it may also ask for some of a batch's
rays to be rendered at lower ranks (*prefix rays*), so that prefixes are trained as well.
"""

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

    def ray_ranks(self, step: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n,) i32 rank of each ray; rays at the active rank come last."""
        ranks = np.full(n, self.rank, np.int32)
        share, choices = self.prefixes(step)
        if choices:
            n_prefix = round(share * n)
            ranks[:n_prefix] = rng.choice(np.asarray(choices, np.int32), n_prefix)
        return ranks

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        return {"rank": self.rank}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        for name in self.state():
            setattr(self, name, state[name])

    def _grow(self) -> bool:
        if self.rank < self.max_rank:
            self.rank += 1
            return True
        return False


class Train(Schedule):
    """TRaIn, the paper's tensorial rank incrementation (SlimmeRF, algorithm 1).

    Starts at rank 1; after step i the rank grows by one if the batch's loss jumped, |L(i-1) - L(i)| / L(i) > υ, and
    more than η steps have passed since the last increase. L is the pure mean squared error.
    """

    needs_loss = True

    def __init__(self, config: ScheduleConfig, max_rank: int, steps: int) -> None:
        super().__init__(config, max_rank, steps)
        self.last_loss: float | None = None
        self.last_increase = -1

    def first_rank(self) -> int:
        """Rank 1."""
        return 1

    def update(self, step: int, loss: float | None) -> str | None:
        """Grows by one where the loss jumped."""
        before, self.last_loss = self.last_loss, loss
        if before is None or loss is None or loss <= 0 or step - self.last_increase <= self.config.eta:
            return None
        change = abs(before - loss) / loss
        if change > self.config.upsilon and self._grow():
            self.last_increase = step
            return f"loss {'jumped' if loss > before else 'fell'} {100 * change:.0f} % ({before:.5f} to {loss:.5f})"
        return None

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        return {"rank": self.rank, "last_loss": self.last_loss, "last_increase": self.last_increase}


class Staged(Schedule):
    """Growth in stages, with prefix rays that keep what earlier stages reached.

    The rank starts at ``stage_ranks[0]`` and becomes ``stage_ranks[i]`` at share ``stage_starts[i]`` of the run (the
    last stage goes to the field's full rank). In each batch a share of the rays is rendered at prefixes drawn from
    ``anchors``, so that smaller models stay good while later ranks arrive.
    """

    def first_rank(self) -> int:
        """The first stage's rank."""
        return self._planned(0)

    def _planned(self, step: int) -> int:
        config = self.config
        reached = [
            r for r, start in zip(config.stage_ranks, config.stage_starts, strict=True) if step >= start * self.steps
        ]
        last = len(reached) == len(config.stage_ranks)
        return self.max_rank if last or not reached else min(reached[-1], self.max_rank)

    def update(self, step: int, loss: float | None) -> str | None:
        """Grows when the next stage begins."""
        planned = self._planned(step + 1)
        if planned <= self.rank:
            return None
        self.rank = planned
        return f"stage begins at {100 * (step + 1) / self.steps:.0f} % of training"

    def prefixes(self, step: int) -> tuple[float, tuple[int, ...]]:
        """The configured share, over the anchors below the active rank."""
        return self.config.prefix_share, tuple(r for r in self.config.anchors if r < self.rank)


POLICIES: dict[str, type[Schedule]] = {"fixed": Schedule, "train": Train, "staged": Staged}


def make_schedule(config: ScheduleConfig, max_rank: int, steps: int) -> Schedule:
    """The schedule that the settings name. Raises ``ConfigError`` for unknown policies and impossible settings."""
    if config.policy not in POLICIES:
        raise ConfigError(f"unknown schedule {config.policy!r}; known: {', '.join(POLICIES)}")
    if config.upsilon < 0 or config.eta < 0:
        raise ConfigError(f"upsilon {config.upsilon} and eta {config.eta}: both must be 0 or more")
    starts = config.stage_starts
    if len(config.stage_ranks) != len(starts) or not starts or starts[0] != 0 or list(starts) != sorted(starts):
        raise ConfigError(
            f"stage_ranks {config.stage_ranks} and stage_starts {starts}: as many of each, the starts rising from 0"
        )
    if not 0 <= config.prefix_share < 1 or any(r < 1 for r in (*config.anchors, *config.stage_ranks)):
        raise ConfigError("prefix_share must be 0 to 1, anchors and stage_ranks 1 or more")
    return POLICIES[config.policy](config, max_rank, steps)
