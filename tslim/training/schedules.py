"""Rank schedules: the policies that set the active rank while training. Pure Python, no device.

A schedule is told each batch's loss and answers with the rank for the next step; it may also ask for some of a batch's
rays to be rendered at lower ranks (*prefix rays*), so that prefixes are trained as well, and for some ranks to be left
as they are.
"""

import math
from typing import Any

import numpy as np

from tslim.config import ScheduleConfig
from tslim.errors import ConfigError
from tslim.training.schedule import Schedule


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
        jump = _jump(before, loss, self.config.upsilon)
        if jump is None or step - self.last_increase <= self.config.eta or self.rank == self.max_rank:
            return None
        self.rank += 1
        self.last_increase = step
        return jump

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        return {"rank": self.rank, "last_loss": self.last_loss, "last_increase": self.last_increase}


class Staged(Schedule):
    """Growth in stages, with prefix rays that keep what earlier stages reached.

    The rank starts at ``stage_ranks[0]`` and becomes ``stage_ranks[i]`` at share ``stage_starts[i]`` of the run (the
    last stage goes to the field's full rank). In each batch a share of the rays is rendered at prefixes drawn from
    ``prefix_ranks``, so that every smaller model stays good while later ranks arrive; or each ray is rendered at the
    active rank and at ``prefixes_per_ray`` prefixes.
    """

    def first_rank(self) -> int:
        """The first stage's rank."""
        return self._planned(0)

    def _planned(self, step: int) -> int:
        return self._stage_rank(sum(step >= start * self.steps for start in self.config.stage_starts))

    def _stage_rank(self, begun: int) -> int:
        """Active rank once so many stages have begun: at least the first; the last has all ranks."""
        ranks = self.config.stage_ranks
        return self.max_rank if begun >= len(ranks) else min(ranks[max(begun, 1) - 1], self.max_rank)

    def update(self, step: int, loss: float | None) -> str | None:
        """Grows when the next stage begins."""
        planned = self._planned(step + 1)
        if planned <= self.rank:
            return None
        self.rank = planned
        return f"stage begins at {100 * (step + 1) / self.steps:.0f} % of training"

    def prefixes(self, step: int) -> tuple[float, tuple[int, ...]]:
        """The configured share, over the prefix ranks, or all ranks, below the active one; none if none is drawn."""
        return self.config.prefix_share, self._named_below(self.rank) if self._draws() else ()

    def _draws(self) -> bool:
        """Whether any prefixes are rendered at all."""
        return self.config.prefixes_per_ray > 0 or self.config.prefix_share > 0

    def _named_below(self, rank: int) -> tuple[int, ...]:
        """The prefix ranks below a rank, or all ranks below it where none is named."""
        below = range(1, rank)
        return tuple(r for r in self.config.prefix_ranks or below if r in below)

    def most_renders(self) -> int:
        """The active rank's, and one for each prefix."""
        return 1 + min(self.config.prefixes_per_ray, len(set(self._named_below(self.max_rank))))

    def least_rank(self) -> int:
        """The lowest prefix rank that rays are drawn from, or the first stage's rank."""
        return min((self.first_rank(), *(self._named_below(self.max_rank) if self._draws() else ())))

    def ray_ranks(self, step: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """(times, n) i32: a prefix or the active rank, or ``prefixes_per_ray`` different prefixes and the active rank.

        Prefix ranks that are named twice are drawn before others with twice the probability.
        """
        if not self.config.prefixes_per_ray:
            return super().ray_ranks(step, n, rng)
        choices, named = np.unique(np.asarray(self.prefixes(step)[1], np.int32), return_counts=True)
        # The k smallest of exponential times with the names as rates: drawn one after another without replacement.
        order = np.argsort(rng.exponential(size=(n, len(choices))) / named, axis=1)
        drawn = choices[order[:, : self.config.prefixes_per_ray]].T
        return np.concatenate([drawn, np.full((1, n), self.rank, np.int32)])

    def weights(self, ranks: np.ndarray) -> np.ndarray | None:
        """1 at the active rank; what ``prefix_weight`` says at others, and at the lowest prefix more."""
        config = self.config
        if not config.prefixes_per_ray or config.prefix_weight == config.lowest_weight == 1:
            return None
        low = config.prefix_weight * config.lowest_weight
        cases = [ranks == self.rank, ranks == min(config.prefix_ranks or (1,))]
        return np.select(cases, [1.0, low], config.prefix_weight).astype(np.float32)


class Ordered(Staged):
    """All ranks at once and nothing but them, as in TensoRF; then ranks in order, and prefix rays as in ``Staged``.

    At each of the shares ``order_at`` of the run ranks are put in order (``tslim.model.ordering``). Prefixes are
    rendered from the first of them on. Learning rates fall from their start to their end until then, and once more,
    from ``order_rate`` of their start, until the run's end.
    """

    def __init__(self, config: ScheduleConfig, max_rank: int, steps: int) -> None:
        super().__init__(config, max_rank, steps)
        self.order_steps = tuple(max(1, round(share * steps)) for share in config.order_at)

    def first_rank(self) -> int:
        """All ranks."""
        return self.max_rank

    def update(self, step: int, loss: float | None) -> str | None:
        """Never grows."""
        return None

    def orders(self, done: int) -> bool:
        """At the planned shares of the run."""
        return done in self.order_steps

    def prefixes(self, step: int) -> tuple[float, tuple[int, ...]]:
        """None before ranks are in order."""
        return super().prefixes(step) if step >= self.order_steps[0] else (0.0, ())

    def ray_ranks(self, step: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """(times, n) i32: the full rank alone before ranks are in order."""
        if step < self.order_steps[0]:
            return np.full((1, n), self.rank, np.int32)
        return super().ray_ranks(step, n, rng)

    def pace(self, step: int, decay: float) -> float:
        """Falls by ``decay`` until ranks are in order, and once more from there."""
        first = self.order_steps[0]
        if step < first:
            return decay ** (step / first)
        return self.config.order_rate * decay ** ((step - first) / max(self.steps - first, 1))


class Bounded(Staged):
    """TRaIn's criterion within the plan of ``Staged``, with its prefix rays.

    The next stage begins when the loss of a batch jumps as ``Train`` has it, but no sooner than ``bounds[0]`` times its
    planned start and no later than ``bounds[1]`` times it.
    """

    needs_loss = True

    def __init__(self, config: ScheduleConfig, max_rank: int, steps: int) -> None:
        super().__init__(config, max_rank, steps)
        self.last_loss: float | None = None
        self.begun = 1
        """Stages begun."""

    def update(self, step: int, loss: float | None) -> str | None:
        """Begins the next stage where the loss jumped and its time has come, or where it is high time."""
        before, self.last_loss = self.last_loss, loss
        starts = self.config.stage_starts
        if self.begun == len(starts):
            return None
        sooner, later = (round(bound * starts[self.begun] * self.steps) for bound in self.config.bounds)
        jump = _jump(before, loss, self.config.upsilon) if step + 1 >= sooner else None
        late = step + 1 >= min(later, self.steps - 1)
        if not jump and not late:
            return None
        self.begun += 1
        grown = self._stage_rank(self.begun)
        if grown <= self.rank:
            return None
        self.rank = grown
        return jump or f"no jump of the loss by {100 * (step + 1) / self.steps:.0f} % of training"

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        return {"rank": self.rank, "last_loss": self.last_loss, "begun": self.begun}


class Linear(Schedule):
    """One rank after another, evenly over the first ``linear_share`` of the run; no prefix rays."""

    def first_rank(self) -> int:
        """Rank 1."""
        return 1

    def update(self, step: int, loss: float | None) -> str | None:
        """Grows by as many ranks as are due: more than one where the run has fewer steps than ranks."""
        share = (step + 1) / (self.config.linear_share * self.steps)
        due = min(1 + int((self.max_rank - 1) * share + 1e-9), self.max_rank)
        if due <= self.rank:
            return None
        self.rank = due
        return f"due at {100 * (step + 1) / self.steps:.0f} % of training"


class AllPrefixes(Schedule):
    """All ranks from the start, and every prefix supervised in every batch, after CCNeRF (Tang et al. 2022).

    A batch's rays are spread evenly over ranks 1 .. R. CCNeRF renders each ray at every one of its sizes and adds up
    the errors; here a ray has one rank, so that a step costs no more than another schedule's. (``Staged`` can do as
    CCNeRF does: see ``prefixes_per_ray``.)
    """

    def least_rank(self) -> int:
        """Rank 1."""
        return 1

    def prefixes(self, step: int) -> tuple[float, tuple[int, ...]]:
        """All ranks below the full one."""
        return 1 - 1 / self.max_rank, tuple(range(1, self.max_rank))

    def ray_ranks(self, step: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """(1, n) i32: as many rays of each rank, to within one."""
        return (1 + np.arange(n) * self.max_rank // n).astype(np.int32)[None]


class BlockDescent(Schedule):
    """Block coordinate descent over components: all ranks render, but only one block of ranks learns at a time.

    Blocks of ``bcd_block`` ranks take turns of ``bcd_steps`` steps, from the first to the last and round again; the
    others' factors stay as they are. Basis and decoder, which all blocks share, learn in every step. The paper reports
    that this baseline fluctuates too much to be worth a table (SlimmeRF, 3.6).
    """

    def learning(self, step: int) -> tuple[int, int]:
        """The block whose turn it is."""
        size = self.config.bcd_block
        blocks = -(-self.max_rank // size)
        block = step // self.config.bcd_steps % blocks
        return block * size, min((block + 1) * size, self.max_rank)


POLICIES: dict[str, type[Schedule]] = {
    "fixed": Schedule,
    "train": Train,
    "staged": Staged,
    "ordered": Ordered,
    "bounded": Bounded,
    "linear": Linear,
    "all_prefixes": AllPrefixes,
    "bcd": BlockDescent,
}


def make_schedule(config: ScheduleConfig, max_rank: int, steps: int) -> Schedule:
    """The schedule that the settings name. Raises ``ConfigError`` for unknown policies and impossible settings."""
    if config.policy not in POLICIES:
        raise ConfigError(f"unknown schedule {config.policy!r}; known: {', '.join(POLICIES)}")
    if not config.upsilon >= 0 or not config.eta >= 0:
        raise ConfigError(f"upsilon {config.upsilon} and eta {config.eta}: both must be 0 or more")
    ranks, starts = config.stage_ranks, config.stage_starts
    if len(ranks) != len(starts) or not ranks or starts[0] != 0 or not _rises(starts) or not starts[-1] < 1:
        raise ConfigError(
            f"stage_ranks {ranks} and stage_starts {starts}: as many of each, the starts rising from 0 and below 1"
        )
    if not _rises(ranks) or min((*ranks, *config.prefix_ranks)) < 1:
        raise ConfigError(
            f"stage_ranks {ranks} must rise, prefix_ranks {config.prefix_ranks} and they must be 1 or more"
        )
    if not 0 <= config.prefix_share < 1:
        raise ConfigError(f"prefix_share is {config.prefix_share}: it must be 0 or more and below 1")
    if config.prefixes_per_ray < 0:
        raise ConfigError(f"prefixes_per_ray is {config.prefixes_per_ray}: it must be 0 or more")
    for name in ("prefix_weight", "lowest_weight"):
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}: it must be above 0 and finite")
    if not config.bounds[0] <= 1 <= config.bounds[1] or not config.bounds[0] >= 0:
        raise ConfigError(f"bounds {config.bounds}: the first must be 0 to 1, the second 1 or more")
    at = config.order_at
    if not at or not _rises((0.0, *at, 1.0)) or not 0 < config.order_rate < math.inf:
        raise ConfigError(
            f"order_at {at} and order_rate {config.order_rate}: shares of the run must rise between 0 and 1, and the "
            "rate be above 0"
        )
    if not 0 < config.linear_share <= 1:
        raise ConfigError(f"linear_share is {config.linear_share}: it must be above 0 and at most 1")
    if config.bcd_block < 1 or config.bcd_steps < 1:
        raise ConfigError(f"bcd_block {config.bcd_block} and bcd_steps {config.bcd_steps}: both must be 1 or more")
    return POLICIES[config.policy](config, max_rank, steps)


def _rises(values: tuple[float, ...]) -> bool:
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def _jump(before: float | None, loss: float | None, upsilon: float) -> str | None:
    """In words, that a batch's loss changed by more than υ of itself (the paper's criterion); None if it did not."""
    if before is None or loss is None or loss <= 0 or not abs(before - loss) / loss > upsilon:
        return None
    verb = "jumped" if loss > before else "fell"
    return f"loss {verb} {100 * abs(before - loss) / loss:.0f} % ({before:.5f} to {loss:.5f})"
