"""How CPU threads share the scatter of gradients so that they end soonest: a small model of what its parts cost."""

import itertools

from kernels.tasks import Cut
from kernels.types import Values
from tslim.device import backend

SCAN, PART = 0.65, 0.62
"""Time of two parts of a scatter, relative to that of a whole tensor's gradients: of finding the samples of a band, and
of the plane, or the line, by itself. Measured on two cores."""


def scatter_cut(tasks: int) -> Values:
    """The ``kernels.tasks.Cut`` of so many tasks that takes the device's threads the least time."""
    threads = backend.current().threads

    def time(cut: tuple[int, int, int]) -> float:
        whole, bands, parts = cut
        rounds = -(-(tasks - whole) * bands * parts // threads)
        return whole / threads + rounds * (1.0, PART)[parts - 1] * (SCAN + (1 - SCAN) / bands)

    whole, bands, parts = min(itertools.product(range(0, tasks + 1, threads), range(1, threads + 1), (1, 2)), key=time)
    return Cut(threads=threads, whole=whole, bands=bands, parts=parts)
