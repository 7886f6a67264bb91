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
that of ``scatter_share`` does.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d

SLICE = 512
"""Successive indices that a CPU thread is handed, at least."""


def indices_each(items: int) -> int:
    """Indices that a loop gives each item so that CPU threads get ``items`` of them at least; 1 on a GPU.

    For ``ti.static`` in a kernel: it looks at the arch for which Taichi compiles.
    """
    return SLICE // items if ti.cfg.arch in (ti.x64, ti.arm64) else 1


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


@ti.func
def scatter_items(n_tasks: ti.i32, threads: ti.i32, n_whole: ti.i32, n_bands: ti.i32, n_parts: ti.i32) -> ti.i32:
    """Items of a scatter (see ``scatter_share``): as many for each thread."""
    divided = (n_tasks - n_whole) * n_bands * n_parts
    return (n_whole // threads + (divided + threads - 1) // threads) * threads


@ti.func
def scatter_share(item: ti.i32, n_tasks: ti.i32, threads: ti.i32, n_whole: ti.i32, n_bands: ti.i32, n_parts: ti.i32):
    """Item ``item`` of a scatter: its task; whether it does the task's plane, and its line; its band, and of how many.

    A task is a chunk of a mode: a plane and a line of the gradient, which one thread owns. The first ``n_whole`` tasks,
    a multiple of ``threads``, are an item each; the others are divided, so that no thread waits long for another: each
    in ``n_bands`` bands of rows and, with n_parts = 2, in its plane and its line, which share no arithmetic but the
    position. A thread takes successive items: first whole tasks, then its part of the others, which may be nothing.
    """
    whole_each = n_whole // threads
    each = scatter_items(n_tasks, threads, n_whole, n_bands, n_parts) // threads
    thread = item // each
    task = thread * whole_each + item % each
    plane = 1
    line = 1
    band = 0
    bands = 1
    if item % each >= whole_each:
        rest = (item % each - whole_each) * threads + thread
        divided = n_tasks - n_whole
        task = n_whole + rest // n_parts % divided
        band = rest // (n_parts * divided)
        bands = n_bands
        if n_parts == 2:
            line = rest % 2
            plane = 1 - line
        if band >= n_bands:
            plane = 0
            line = 0
    return task, plane, line, band, bands
