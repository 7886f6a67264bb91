"""The scale and shift of ranks that no ray is rendered at: between the rows of the ranks around them.

    row_r = row_b + share_r (row_a - row_b)        b, a: the nearest learned ranks below and above r

Which rows are learned, and the shares, are the host's to say (``tslim.model.rank_rows``). Learned rows are not written,
and no others are read, so that the order of the tasks makes no difference. Not differentiated: a row that is
interpolated is rendered with by nothing that has a gradient.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d, i32_1d
from kernels.vm import SCALES_WIDTH


@kernel
def interpolate_rows(n_ranks: ti.i32, below: i32_1d, above: i32_1d, share: f32_1d, rows: f32_1d):
    """rows (n_ranks, 56): each row whose number is not its own ``below`` becomes what lies between those two rows."""
    for i in range(n_ranks * SCALES_WIDTH):
        r = i // SCALES_WIDTH
        column = i % SCALES_WIDTH
        if below[r] != r:
            low = rows[below[r] * SCALES_WIDTH + column]
            rows[i] = low + share[r] * (rows[above[r] * SCALES_WIDTH + column] - low)
