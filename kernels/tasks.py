"""How the items of a loop are shared out among threads.

On the CPU Taichi 1.7 gives each thread one run of successive indices of a loop, none shorter than 512, whatever
``block_dim`` and ``cpu_block_dim_adaptive`` say (measured): a loop over 27 items runs on one thread, and of 600 rays
one thread gets 512; what a thread has left is never another's. Loops over few items therefore run over
more indices:

    spread = ti.static(indices_each(8))  # threads get 8 items at least
    for index in range(n * spread):
        if index % spread > 0:
            continue
        item = index // spread

which costs a nanosecond or two an index. Where items are few and unequal their order has to make the runs equal, as
that of ``Cut`` does.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d, record

SLICE = 512
"""Successive indices that a CPU thread is handed, at least."""


RUN = 32
"""Successive items that a GPU's thread adds up before it adds the sum, by an atomic, to what others add to as well."""


def on_cpu() -> bool:
    """Whether Taichi compiles for a CPU. For ``ti.static`` in a kernel."""
    return ti.cfg.arch in (ti.x64, ti.arm64)


def indices_each(items: int) -> int:
    """Indices that a loop gives each item so that CPU threads get ``items`` of them at least; 1 on a GPU.

    For ``ti.static`` in a kernel: it looks at the arch for which Taichi compiles.
    """
    return SLICE // items if on_cpu() else 1


@kernel
def occupy(items: ti.i32, rounds: ti.i32, out: f32_1d):
    """Keeps as many CPU threads as there are items busy for some nanoseconds a round; out (items)."""
    spread = ti.static(indices_each(1))
    for index in range(items * spread):
        x = 1.0
        if index % spread == 0:
            for _ in range(rounds):
                x = ti.sin(x) + 0.1
            out[index // spread] = x


@record
class Portion:
    """What one thread does of a scatter at a time.

    ``task`` is a chunk of a mode: a plane and a line of the gradient. ``plane`` and ``line`` say whether their
    gradients are wanted, and which rows or texels of them: band ``band`` of ``bands``.
    """

    task: ti.i32
    plane: ti.i32
    line: ti.i32
    band: ti.i32
    bands: ti.i32

    @ti.func
    def holds(self, i: ti.i32, size: ti.i32) -> ti.i32:
        """Whether row i of ``size`` is in the band: i bands // size = band, without the division."""
        rest = i * self.bands - self.band * size
        return ti.cast(rest >= 0 and rest < size, ti.i32)


@ti.func
def whole_portion(task: ti.i32):
    """All of a task."""
    return Portion(task, 1, 1, 0, 1)


@record
class Cut:
    """How the tasks of a scatter are cut up so that each thread owns what it writes, and none waits long for another.

    The first ``whole`` tasks, a multiple of ``threads``, are a portion each; the others are divided: each in ``bands``
    bands of rows and, with parts = 2, in its plane and its line, which share no arithmetic but the position. A thread
    takes successive portions: first whole tasks, then its part of the others, which may be nothing.
    """

    threads: ti.i32
    whole: ti.i32
    bands: ti.i32
    parts: ti.i32

    @ti.func
    def portions(self, n_tasks: ti.i32) -> ti.i32:
        """Number of portions of so many tasks: as many for each thread."""
        divided = (n_tasks - self.whole) * self.bands * self.parts
        return (self.whole // self.threads + (divided + self.threads - 1) // self.threads) * self.threads

    @ti.func
    def portion(self, item: ti.i32, n_tasks: ti.i32):
        """``Portion`` number ``item``."""
        whole_each = self.whole // self.threads
        each = self.portions(n_tasks) // self.threads
        thread = item // each
        task = thread * whole_each + item % each
        plane = 1
        line = 1
        band = 0
        bands = 1
        if item % each >= whole_each:
            rest = (item % each - whole_each) * self.threads + thread
            divided = n_tasks - self.whole
            task = self.whole + rest // self.parts % divided
            band = rest // (self.parts * divided)
            bands = self.bands
            if self.parts == 2:
                line = rest % 2
                plane = 1 - line
            if band >= self.bands:
                plane = 0
                line = 0
        return Portion(task, plane, line, band, bands)
