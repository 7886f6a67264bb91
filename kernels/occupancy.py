"""Empty space: the density on a lattice, turned into a bitset of occupied cells.

Lattice vertices sit on the corners of the box. A vertex is *live* if alpha of a step, dilated over its 3³ neighbours,
exceeds the threshold; a cell is occupied if any of its eight corners is live, which is where trilinear interpolation of
the live vertices (as the public code looks its mask up) is above zero.
"""

import taichi as ti

from kernels.bits import get_bit
from kernels.cells import BLOCK, Cells
from kernels.density import Activation, density_components
from kernels.launch import kernel, vector_kernel
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, ivec3, record, u32_1d, vec3
from kernels.vectors import CHUNK, below, vec16, vec16_1d
from kernels.vm import Lattice


@ti.func
def vertex(i: ti.i32, size: ivec3) -> ivec3:
    """Lattice coordinates of vertex i (x fastest)."""
    return ivec3(i % size[0], i // size[0] % size[1], i // (size[0] * size[1]))


@record
class Vertices:
    """Where alpha is asked for: vertices along x, y, z, where the first lies, and how far the next."""

    size: ivec3
    low: vec3
    spacing: vec3


@vector_kernel
def vertex_alpha(
    vertices: Vertices, n_ranks: ti.i32, ranks: i32_1d, factors: vec16_1d, rank_scales: f32_1d, lattice: Lattice,
    activation: Activation, delta: ti.f32, older: Cells, older_occupied: u32_1d,
    alpha: f32_1d,
):  # fmt: skip
    """alpha = 1 - exp(-delta sigma) (x fastest) at each lattice vertex: the largest over the given ranks, which rise.

    0 outside the field's box and where an older grid is empty.
    """
    size = vertices.size
    for i in range(size[0] * size[1] * size[2]):
        c = vertex(i, size)
        x = vertices.low
        for a in ti.static(range(3)):
            x[a] += ti.cast(c[a], ti.f32) * vertices.spacing[a]
        sigma = 0.0
        wanted = lattice.holds(x + (lattice.box_min - x) * 1e-5)
        if wanted == 1 and older.count[0] > 0:
            q = ivec3(0)
            for a in ti.static(range(3)):
                cell = ti.floor((x[a] - older.origin[a]) * older.per_unit[a], ti.i32)
                q[a] = ti.min(ti.max(cell, 0), older.count[a] - 1)
            wanted = older.is_occupied(older_occupied, older.block(q), q)
        if wanted == 1:
            spot = lattice.layout.spot(lattice.on_grid(x))
            whole = 0.0
            chunk = -1
            components = vec16(0.0)
            for k in range(n_ranks):
                rank = ranks[k]
                while (chunk + 1) * CHUNK < rank:
                    whole += components.sum()
                    chunk += 1
                    components = density_components(factors, lattice.layout, chunk, spot)
                f = whole + below(components, rank, chunk).sum()
                scale, shift = activation.scale_and_shift(rank_scales, rank)
                sigma = ti.max(sigma, activation.density(scale * f + shift))
        alpha[i] = 1.0 - ti.exp(-delta * sigma)


@kernel
def live_vertices(size: ivec3, threshold: ti.f32, alpha: f32_1d, live: u32_1d):
    """Bit per vertex: the largest alpha among the vertex and its 26 neighbours exceeds the threshold."""
    n = size[0] * size[1] * size[2]
    spread = ti.static(indices_each(16))
    for index in range(((n + 31) // 32) * spread):
        if index % spread > 0:
            continue
        word = index // spread
        bits = ti.u32(0)
        for b in range(32):
            i = word * 32 + b
            if i < n:
                c = vertex(i, size)
                hit = 0
                for dz in range(ti.max(c[2] - 1, 0), ti.min(c[2] + 2, size[2])):
                    for dy in range(ti.max(c[1] - 1, 0), ti.min(c[1] + 2, size[1])):
                        for dx in range(ti.max(c[0] - 1, 0), ti.min(c[0] + 2, size[0])):
                            if alpha[(dz * size[1] + dy) * size[0] + dx] > threshold:
                                hit = 1
                if hit == 1:
                    bits |= ti.u32(1) << ti.cast(b, ti.u32)
        live[word] = bits


@kernel
def occupied_cells(size: ivec3, blocks: ivec3, live: u32_1d, occupied: u32_1d):
    """Bit per cell (size - 1 along each axis, in the order of ``kernels.cells``): any corner is live."""
    spread = ti.static(indices_each(1))
    for index in range(blocks[0] * blocks[1] * blocks[2] * spread):
        if index % spread > 0:
            continue
        block = index // spread
        first = vertex(block, blocks) * BLOCK
        for word in range(BLOCK**3 // 32):
            bits = ti.u32(0)
            for b in range(32):
                c = first + vertex(word * 32 + b, ivec3(BLOCK))
                hit = 0
                if c[0] < size[0] - 1 and c[1] < size[1] - 1 and c[2] < size[2] - 1:
                    for corner in range(8):
                        x = c[0] + (corner & 1)
                        y = c[1] + ((corner >> 1) & 1)
                        z = c[2] + (corner >> 2)
                        hit |= get_bit(live, (z * size[1] + y) * size[0] + x)
                if hit == 1:
                    bits |= ti.u32(1) << ti.cast(b, ti.u32)
            occupied[block * (BLOCK**3 // 32) + word] = bits


@kernel
def coarse_blocks(n: ti.i32, occupied: u32_1d, coarse: u32_1d):
    """Bit per block, of n: any of its cells is occupied."""
    for word in range((n + 31) // 32):
        bits = ti.u32(0)
        for b in range(ti.min(32, n - 32 * word)):
            some = ti.u32(0)
            for k in range(BLOCK**3 // 32):
                some |= occupied[(word * 32 + b) * (BLOCK**3 // 32) + k]
            if some != 0:
                bits |= ti.u32(1) << ti.cast(b, ti.u32)
        coarse[word] = bits
