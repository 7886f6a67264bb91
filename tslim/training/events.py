"""What a training run tells its consumers. ``Trainer.run()`` yields these; ``str(event)`` is a line for people."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events. ``step`` counts finished optimiser steps."""

    step: int


@dataclass(frozen=True)
class Started(Event):
    """First event of a run: what is about to happen, and what memory it will take (bytes by purpose)."""

    steps: int
    memory: dict[str, int] = dataclasses.field(hash=False)
    resumed: bool = False
    field: Any = dataclasses.field(default=None, repr=False, compare=False)
    """The ``Field`` that learns: for consumers that show it. They must not change it."""
    scene: Any = dataclasses.field(default=None, repr=False, compare=False)
    """The ``Scene`` it learns from."""
    run_dir: Path | None = dataclasses.field(default=None, compare=False)
    """Where the run keeps its files, if anywhere."""

    def __str__(self) -> str:
        verb = "resumed" if self.resumed else "started"
        return f"step {self.step}: {verb}, {self.steps} steps, about {sum(self.memory.values()) / 1e6:.0f} MB"


@dataclass(frozen=True)
class Stepped(Event):
    """One optimiser step is done. Carries nothing that would have to be read back from the device."""

    rank: int

    def __str__(self) -> str:
        return f"step {self.step}: rank {self.rank}"


@dataclass(frozen=True)
class Progress(Event):
    """Yielded every ``report_every`` steps: means over the steps since the last one."""

    steps: int
    rank: int
    loss: float
    """Mean squared error of the training rays, without regularisers."""
    psnr: float
    """-10 log10(loss)."""
    rays_per_second: float
    seconds: float
    """Training time so far, earlier parts of a resumed run included."""
    seconds_left: float
    samples_per_ray: float
    visible_per_ray: float
    """Samples per ray whose colour was decoded."""
    psnr_by_rank: dict[int, float] = dataclasses.field(default_factory=dict, hash=False)
    """PSNR of the training rays that were rendered at each rank; ranks without rays are left out."""
    grew: "tuple[RankGrew, ...]" = ()
    """The rank increases since the last report."""

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps}: loss {self.loss:.5f}, PSNR {self.psnr:.2f} dB, rank {self.rank}, "
            f"{self.rays_per_second:,.0f} rays/s, {self.seconds_left:.0f} s left"
        )


@dataclass(frozen=True)
class RankGrew(Event):
    """The schedule raised the active rank; ``cause`` says why in words."""

    rank: int
    cause: str

    def __str__(self) -> str:
        return f"step {self.step}: rank {self.rank}, {self.cause}"


@dataclass(frozen=True)
class RanksOrdered(Event):
    """Ranks were put in order, by what they say; from here on prefixes are trained as well."""

    def __str__(self) -> str:
        return f"step {self.step}: ranks in order"


@dataclass(frozen=True)
class GridGrew(Event):
    """The field was resampled to a finer grid (texels along x, y, z)."""

    grid: tuple[int, int, int]

    def __str__(self) -> str:
        return f"step {self.step}: grid {'x'.join(map(str, self.grid))}"


@dataclass(frozen=True)
class OccupancyRefreshed(Event):
    """Empty space was measured anew. ``box`` is set if the field was cropped to what is occupied."""

    occupied: float
    """Share of occupied cells, 0 to 1."""
    box: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None

    def __str__(self) -> str:
        return f"step {self.step}: {100 * self.occupied:.1f} % occupied" + (", box shrunk" if self.box else "")


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """Everything needed to continue exactly from here is on disk."""

    path: Path

    def __str__(self) -> str:
        return f"step {self.step}: saved {self.path}"


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know, in one line."""

    message: str

    def __str__(self) -> str:
        return f"step {self.step}: warning: {self.message}"


@dataclass(frozen=True)
class Finished(Event):
    """Last event: the planned steps are done."""

    seconds: float

    def __str__(self) -> str:
        return f"step {self.step}: finished after {self.seconds:.0f} s"
