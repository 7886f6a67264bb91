"""Running sums on a GPU, where a loop over thousands of numbers is slow on one thread.

Three loops, one after the other: each block's own sum, by a thread a block (``sum_block``); the sums of all blocks
before the end of each, on one thread (``add_block``); what lies in between, by a thread a block (``fill_block``).
"""

import taichi as ti

BLOCK = 256
"""Numbers of a block: what one thread adds up, while another does the same for each of the other blocks."""


@ti.func
def n_blocks(n: ti.i32) -> ti.i32:
    """Blocks that n numbers make."""
    return (n + BLOCK - 1) // BLOCK


@ti.func
def sum_block(block: ti.i32, n: ti.i32, period: ti.i32, counts: ti.template(), starts: ti.template()):
    """Leaves the sum of a block's counts where the block ends."""
    total = 0
    end = ti.min((block + 1) * BLOCK, n)
    for i in range(block * BLOCK, end):
        total += counts[i % period]
    starts[end] = total


@ti.func
def add_block(block: ti.i32, n: ti.i32, starts: ti.template()):
    """Adds what was counted up to the beginning of a block to what was counted in it; block after block."""
    if block == 0:
        starts[0] = 0
    end = ti.min((block + 1) * BLOCK, n)
    starts[end] = starts[end] + starts[block * BLOCK]


@ti.func
def fill_block(block: ti.i32, n: ti.i32, period: ti.i32, counts: ti.template(), starts: ti.template()):
    """The running sum within a block, whose ends are there."""
    at = starts[block * BLOCK]
    for i in range(block * BLOCK, ti.min((block + 1) * BLOCK, n) - 1):
        at += counts[i % period]
        starts[i + 1] = at
