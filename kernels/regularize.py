"""Total variation of the planes. The other regulariser, L1, lives in the Adam pass: its gradient is a sign.

As in TensoRF (there per plane tensor of K active components on a G_v x G_u grid):

    TV = 2 ( sum (P[v+1, u] - P[v, u])² / (K (G_v - 1) G_u)  +  sum (P[v, u+1] - P[v, u])² / (K G_v (G_u - 1)) )

and 1e-2 of that is added up over the three modes.
"""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.vectors import CHUNK, below, vec16_1d
from kernels.vm import Layout

TV_SCALE = 1e-2


@vector_kernel
def tv_backward(factors: vec16_1d, grad_factors: vec16_1d, layout: Layout, components: ti.i32, weight: ti.f32):
    """Adds weight * dTV/dP to the gradients of the first ``components`` components' planes, texel by texel."""
    per_chunk = layout.plane_texels()
    n_chunks = (components + CHUNK - 1) // CHUNK
    for i in range(n_chunks * per_chunk):
        chunk = i // per_chunk
        m, _, rest = layout.find_texel(i % per_chunk)
        mode = layout.mode(m)
        width = mode.width
        height = mode.area // width
        u = rest % width
        v = rest // width
        at = mode.plane + chunk * mode.area + rest
        x = factors[at]
        by_v = x * 0.0
        by_u = x * 0.0
        if v > 0:
            by_v += x - factors[at - width]
        if v < height - 1:
            by_v += x - factors[at + width]
        if u > 0:
            by_u += x - factors[at - 1]
        if u < width - 1:
            by_u += x - factors[at + 1]
        k = ti.cast(components, ti.f32)
        c = 4.0 * TV_SCALE * weight / k
        scale_v = c / (ti.cast(height - 1, ti.f32) * ti.cast(width, ti.f32))
        scale_u = c / (ti.cast(height, ti.f32) * ti.cast(width - 1, ti.f32))
        grad_factors[at] = grad_factors[at] + below(by_v * scale_v + by_u * scale_u, components, chunk)
