"""How the items of a loop are shared out among threads.

On the CPU Taichi 1.7 hands a thread 512 successive indices of a loop at a time, whatever ``block_dim`` and
``cpu_block_dim_adaptive`` say (measured): a loop over 27 items runs on one thread, and of 600 rays one thread gets
512. Loops over few or unequal items therefore run over more indices than items:

    spread = ti.static(indices_each(8))  # a thread takes 8 items at a time
    for index in range(n * spread):
        if index % spread > 0:
            continue
        item = index // spread

which costs a nanosecond or two an index.
"""

import taichi as ti

SLICE = 512
"""Successive indices that a CPU thread is handed at a time."""


def indices_each(items: int) -> int:
    """Indices that a loop gives each item so that a CPU thread takes ``items`` at a time; 1 on a GPU.

    For ``ti.static`` in a kernel: it looks at the arch for which Taichi compiles.
    """
    return SLICE // items if ti.cfg.arch in (ti.x64, ti.arm64) else 1
