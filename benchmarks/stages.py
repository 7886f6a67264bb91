"""Where a training step's time goes: a stopwatch around its stages, and the work that each stage cannot do without.

The work is counted for the algorithm, not for the code: every multiplication and addition that the equations of
``kernels/`` ask for, and every byte that has to pass between memory and processor once, namely the arrays that a stage
reads and writes and the texels that it touches (each counted once, as if the caches were perfect).
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FEATURES = 27
INTERPOLATE = 7 + 3
"""Operations of one component's bilinear and linear interpolation, once the weights are known."""
SCATTER = 2 * INTERPOLATE + 4 * 2 + 2 * 2 + 2
"""The same for its adjoint: both values again, two products, four plane texels and two line texels."""


@dataclass(frozen=True)
class Counts:
    """What one step worked on."""

    rays: int
    samples: int
    """in occupied space"""
    used: int
    """looked at before their rays ended"""
    visible: int
    """given a colour"""
    groups: int
    """colours decoded: as many as visible samples, or fewer where samples share one"""
    rank: int
    grid: tuple[int, int, int]
    layers: tuple[int, ...] = (150, 128, 128, 3)
    """widths of the decoder, inputs first"""
    feature_inputs: int = 135
    """how many of its inputs depend on features"""

    @property
    def texels(self) -> int:
        """Texels of one component: three planes and three lines."""
        x, y, z = self.grid
        return x * y + x * z + y * z + x + y + z


@dataclass(frozen=True)
class Work:
    """Arithmetic operations and bytes of memory traffic."""

    flops: float
    n_bytes: float


def minimal_work(c: Counts) -> dict[str, Work]:
    """Stage → work of a training step with the MLP decoder."""
    density, appearance = 3 * c.rank, 9 * c.rank

    def factors(components: int, samples: int) -> float:
        """Bytes of the texels that so many samples touch: those of all, or of six texels for each sample if fewer."""
        return 4 * components / 3 * min(c.texels, 18 * samples)

    mlp = 2 * sum(a * b for a, b in itertools.pairwise(c.layers))
    # The first layer's gradient by its inputs is wanted for those that depend on features, not for directions.
    mlp_backward = 2 * mlp - 2 * (c.layers[0] - c.feature_inputs) * c.layers[1]
    parameters = (density + appearance) / 3 * c.texels + appearance * FEATURES + mlp / 2
    trigonometry = 12 * 30 if c.layers[0] > 30 else 0
    row = 4 * FEATURES
    return {
        "rays": Work(60 * c.rays, 4 * 10 * c.rays),
        "march": Work(20 * c.samples, 4 * (8 * c.rays + c.samples)),
        "density": Work(c.used * (density * (INTERPOLATE + 2) + 40), factors(density, c.used) + 4 * 3 * c.used),
        "appearance": Work(
            c.visible * (appearance * (INTERPOLATE + 1) + 30) + c.groups * 2 * appearance * FEATURES,
            factors(appearance, c.visible) + 12 * c.visible + row * c.groups,
        ),
        "decode": Work(c.groups * (mlp + trigonometry), c.groups * (row + 12)),
        "composite": Work(c.groups * 8 + c.rays * 20, 4 * (4 * c.groups + 9 * c.rays)),
        "composite adjoint": Work(c.used * 40 + c.visible * 12, 4 * (4 * c.used + 7 * c.visible + 6 * c.rays)),
        "decode adjoint": Work(c.groups * (mlp_backward + trigonometry), c.groups * (2 * row + 24)),
        "appearance adjoint": Work(
            c.visible * appearance * SCATTER + c.groups * 4 * appearance * FEATURES,
            3 * factors(appearance, c.visible) + 12 * c.visible + c.groups * row,
        ),
        "density adjoint": Work(c.used * density * SCATTER, 3 * factors(density, c.used) + 4 * 2 * c.used),
        "update": Work(14 * parameters, 4 * 8 * parameters),
    }


@dataclass
class Stopwatch:
    """Time by stage; a stage inside another is not counted twice."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    _step: dict[str, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    def around(self, stage: str, function: Callable) -> Callable:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self._step[stage] = self._step.get(stage, 0.0) + took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return timed

    def end_step(self, total: float) -> None:
        """Files the step's times; what no stage accounts for is "other"."""
        self._step["other"] = total - sum(self._step.values())
        for stage, seconds in self._step.items():
            self.seconds.setdefault(stage, []).append(seconds)
        self._step = {}

    def medians_ms(self) -> dict[str, float]:
        """Stage → milliseconds."""
        return {stage: 1e3 * statistics.median(values) for stage, values in self.seconds.items()}


@contextmanager
def timed_stages(trainer: Any) -> Iterator[Stopwatch]:
    """While open, every stage of the trainer's steps is timed."""
    from kernels import appearance, composite, density, groups, loss, march, trace

    pipeline, watch = trainer.pipeline, Stopwatch()
    targets = [
        (trainer.sampler, "fill", "rays"),
        (pipeline, "march", "march"),
        (march, "expand", "march"),
        (trace, "trace_density", "density"),
        (groups, "count_visible", "density"),
        (groups, "collect_visible", "density"),
        (groups, "weigh_groups", "density"),
        (pipeline, "_appearance", "appearance"),
        (trainer.field.decoder, "forward", "decode"),
        (composite, "composite", "composite"),
        (loss, "squared_error", "composite"),
        (composite, "colour_gradients", "composite adjoint"),
        (groups, "mean_gradients", "composite adjoint"),
        (composite, "composite_backward", "composite adjoint"),
        (trace, "trace_backward", "composite adjoint"),
        (density, "density_backward", "density adjoint"),
        (trainer.field.decoder, "backward", "decode adjoint"),
        (pipeline, "_basis_backward", "appearance adjoint"),
        (appearance, "appearance_backward", "appearance adjoint"),
        (trainer.optimizer, "step", "update"),
    ]
    replaced = []
    for owner, name, stage in targets:
        replaced.append((owner, name, name in vars(owner), getattr(owner, name)))
        setattr(owner, name, watch.around(stage, getattr(owner, name)))
    try:
        yield watch
    finally:
        for owner, name, own, function in reversed(replaced):
            if own:
                setattr(owner, name, function)
            else:
                delattr(owner, name)
