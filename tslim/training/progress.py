"""What has happened since the last progress report: sums over batches, and the report made of them."""

import math
from typing import Any

import numpy as np

from tslim.rendering.pipeline import Pipeline
from tslim.training.events import Progress, RankGrew
from tslim.training.watch import Shown

_COUNTS = ("first", "rays", "losses", "samples", "visible", "looks")
_SUMS = ("began", "loss", "variance", "unlike_background", "opacity")


class Window:
    """Sums between two progress reports.

    Args:
        seconds: training time so far.
        step: steps done so far.
        max_rank: of the field.
    """

    def __init__(self, seconds: float, step: int, max_rank: int) -> None:
        self.began, self.first = seconds, step
        self.rays = self.losses = self.samples = self.visible = 0
        self.loss = 0.0
        self.rank_loss = np.zeros(max_rank + 1)
        """(max_rank + 1,) sum of the squared errors of the rays rendered at each rank"""
        self.looks = 0
        """batches whose colours were looked at, and over them sums of"""
        self.variance = self.unlike_background = self.opacity = 0.0
        self.rank_rays = np.zeros(max_rank + 1, np.int64)

    def add(self, pipeline: Pipeline) -> None:
        """Adds one batch's work."""
        self.rays += pipeline.n_rays
        self.samples += pipeline.n_samples
        self.visible += pipeline.n_visible

    def add_losses(self, rank: int, ranks: np.ndarray, losses: np.ndarray) -> float | None:
        """Adds one batch's squared errors (n,), with the rank of each ray; on a GPU most batches are left out.

        Returns the mean over the rays at the active rank, None if there are none.
        """
        n = len(self.rank_rays)
        sums, counts = np.bincount(ranks, losses, n), np.bincount(ranks, minlength=n)
        self.rank_loss += sums
        self.rank_rays += counts
        if not counts[rank]:
            return None
        loss = float(sums[rank] / counts[rank])
        self.losses += 1
        self.loss += loss
        return loss

    def add_colours(self, target: np.ndarray, background: tuple[float, float, float], opacity: np.ndarray) -> None:
        """Adds which colours the rays of a batch should show (n, 3), over which background, and how opaque the rays are
        (n,).
        """
        self.looks += 1
        self.variance += float(target.var(0).mean())
        self.unlike_background += float(np.square(target - np.asarray(background, np.float32)).mean())
        self.opacity += float(opacity.mean())

    def shown(self) -> Shown:
        """What the field has shown, as means."""
        n = max(self.looks, 1)
        return Shown(self.loss / max(self.losses, 1), self.variance / n, self.unlike_background / n, self.opacity / n)

    def report(self, step: int, steps: int, rank: int, seconds: float, grew: tuple[RankGrew, ...]) -> Progress:
        """The sums as means, after ``step`` of ``steps`` steps and ``seconds`` of training."""
        passed = max(seconds - self.began, 1e-9)
        loss = self.shown().loss
        rays = max(self.rays, 1)
        seen = np.flatnonzero(self.rank_rays)
        return Progress(
            step=step,
            steps=steps,
            rank=rank,
            loss=loss,
            psnr=decibels(loss),
            rays_per_second=self.rays / passed,
            seconds=seconds,
            seconds_left=(steps - step) * passed / max(step - self.first, 1),
            samples_per_ray=self.samples / rays,
            visible_per_ray=self.visible / rays,
            psnr_by_rank={int(r): decibels(self.rank_loss[r] / self.rank_rays[r]) for r in seen},
            grew=grew,
        )

    def state(self) -> dict[str, Any]:
        """Plain data to continue from."""
        plain = {name: getattr(self, name) for name in (*_COUNTS, *_SUMS)}
        return plain | {"rank_loss": self.rank_loss.tolist(), "rank_rays": self.rank_rays.tolist()}

    def load_state(self, plain: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        for name in (*_COUNTS, *_SUMS):
            setattr(self, name, plain[name])
        self.rank_loss = np.array(plain["rank_loss"], np.float64)
        self.rank_rays = np.array(plain["rank_rays"], np.int64)

    @staticmethod
    def is_valid(plain: Any, step: int, max_rank: int) -> bool:
        """Whether ``load_state`` can continue from it, at that step, with a field of that rank."""
        if not isinstance(plain, dict) or set(plain) != {*_COUNTS, *_SUMS, "rank_loss", "rank_rays"}:
            return False
        lists = [plain["rank_loss"], plain["rank_rays"]]
        if not all(isinstance(values, list) and len(values) == max_rank + 1 for values in lists):
            return False
        counts = [plain[name] for name in _COUNTS] + plain["rank_rays"]
        sums = [plain[name] for name in _SUMS] + plain["rank_loss"]
        return (
            all(type(n) is int and 0 <= n < 2**62 for n in counts)
            and all(type(x) in (int, float) and 0 <= x < math.inf for x in sums)
            and plain["first"] <= step
        )


def decibels(loss: float) -> float:
    """PSNR of a mean squared error of colours in [0, 1]: -10 log10(loss), at most 120."""
    return -10 * math.log10(max(loss, 1e-12))
