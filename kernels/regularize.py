"""Total variation of the planes. The other regulariser, L1, lives in the Adam pass: its gradient is a sign.

As in TensoRF (there per plane tensor of K active components on a G_v x G_u grid):

    TV = 2 ( sum (P[v+1, u] - P[v, u])² / (K (G_v - 1) G_u)  +  sum (P[v, u+1] - P[v, u])² / (K G_v (G_u - 1)) )

and 1e-2 of that is added up over the three modes.
"""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.types import ivec3
from kernels.vectors import CHUNK, below, vec16_1d
from kernels.vm import mode_layout

TV_SCALE = 1e-2


@vector_kernel
def tv_backward(
    planes: vec16_1d,
    grad_planes: vec16_1d,
    grid: ivec3,
    max_chunks: ti.i32,
    components: ti.i32,
    weight: ti.f32,
):
    """Adds weight * dTV/dP to the gradient arena for the first ``components`` components, texel by texel."""
    per_chunk = grid[0] * grid[1] + grid[0] * grid[2] + grid[1] * grid[2]
    n_chunks = (components + CHUNK - 1) // CHUNK
    for i in range(n_chunks * per_chunk):
        chunk = i // per_chunk
        rest = i % per_chunk
        m = 0
        plane_base, area, g_u, line_base, g_w = mode_layout(0, grid, max_chunks)
        while rest >= area:
            rest -= area
            m += 1
            plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
        g_v = area // g_u
        u = rest % g_u
        v = rest // g_u
        at = plane_base + chunk * area + rest
        x = planes[at]
        by_v = x * 0.0
        by_u = x * 0.0
        if v > 0:
            by_v += x - planes[at - g_u]
        if v < g_v - 1:
            by_v += x - planes[at + g_u]
        if u > 0:
            by_u += x - planes[at - 1]
        if u < g_u - 1:
            by_u += x - planes[at + 1]
        k = ti.cast(components, ti.f32)
        c = 4.0 * TV_SCALE * weight / k
        scale_v = c / (ti.cast(g_v - 1, ti.f32) * ti.cast(g_u, ti.f32))
        scale_u = c / (ti.cast(g_v, ti.f32) * ti.cast(g_u - 1, ti.f32))
        grad_planes[at] = grad_planes[at] + below(by_v * scale_v + by_u * scale_u, components, chunk)
