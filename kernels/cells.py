"""Occupied cells: a bitset over a lattice, block by block of 8³ cells, in each of them x fastest.

Along a ray that goes through it a block is one cache line. ``coarse`` has one bit for each block, so that empty space
is crossed a block at a time.
"""

import taichi as ti

from kernels.bits import get_bit
from kernels.types import ivec3, record, vec3

BLOCK_BITS = 3
BLOCK = 1 << BLOCK_BITS
"""Cells along one side of a coarse block."""


@ti.func
def block_of(c: ivec3, blocks: ivec3) -> ti.i32:
    """The block that cell c is in, of a grid with as many blocks along x, y, z."""
    return ((c[2] >> BLOCK_BITS) * blocks[1] + (c[1] >> BLOCK_BITS)) * blocks[0] + (c[0] >> BLOCK_BITS)


@record
class Cells:
    """A lattice of cells: their number along x, y, z, (0, 0, 0) if everything is occupied; where the first one begins,
    how many there are to a unit, and the number of blocks.
    """

    count: ivec3
    origin: vec3
    per_unit: vec3
    blocks: ivec3

    @ti.func
    def clamp(self, c: ivec3) -> ivec3:
        """The cell of the lattice that is nearest to c."""
        inside = c
        for a in ti.static(range(3)):
            inside[a] = ti.min(ti.max(c[a], 0), self.count[a] - 1)
        return inside

    @ti.func
    def at(self, x: vec3) -> ivec3:
        """The cell that x lies in, or the nearest one."""
        return self.clamp(ti.floor((x - self.origin) * self.per_unit, ti.i32))

    @ti.func
    def block(self, c: ivec3) -> ti.i32:
        """The block that cell c is in."""
        return block_of(c, self.blocks)

    @ti.func
    def is_occupied(self, occupied: ti.template(), block: ti.i32, c: ivec3) -> ti.i32:
        """The bit of cell c, which is in the block."""
        within = BLOCK - 1
        row = (block * BLOCK + (c[2] & within)) * BLOCK * BLOCK
        return get_bit(occupied, row + (c[1] & within) * BLOCK + (c[0] & within))


EVERYTHING = Cells(count=(0, 0, 0), origin=(0.0, 0.0, 0.0), per_unit=(1.0, 1.0, 1.0), blocks=(0, 0, 0))
"""Of a field whose empty space is not known."""
