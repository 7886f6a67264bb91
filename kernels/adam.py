"""Adam (Kingma and Ba 2015) over arenas and flat arrays, with the L1 penalty and the rank mask in the same pass.

    g += l1 sign(p);   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g²;   p -= lr (m / c1) / (sqrt(v / c2) + eps)

with c1 = 1 - b1^n, c2 = 1 - b2^n after n steps. Gradients are zeroed where they were used. Each component of an arena
has a learning rate of its own; those with none keep their bits, moments included. With ``lazy`` = 1 so do elements of
16 components without a gradient: most of a large grid, which Adam otherwise moves on by what is left in m.
"""

import taichi as ti

from kernels.launch import kernel, vector_kernel
from kernels.types import f32_1d, ivec3, vec3
from kernels.vectors import CHUNK, vec16, vec16_1d
from kernels.vm import find_texel, mode_layout


@ti.func
def adam_chunk(
    p: ti.template(),
    g: ti.template(),
    m: ti.template(),
    v: ti.template(),
    at: ti.i32,
    lr: vec16,
    l1: ti.f32,
    lazy: ti.i32,
    beta1: ti.f32,
    beta2: ti.f32,
    correction1: ti.f32,
    correction2: ti.f32,
    eps: ti.f32,
):
    """One element of 16 components; lanes with a learning rate of 0 are left as they are."""
    grad = g[at]
    largest = 1.0
    if lazy == 1:
        largest = 0.0
        for lane in ti.static(range(CHUNK)):
            largest = ti.max(largest, ti.abs(grad[lane]))
    if largest > 0.0:
        x = p[at]
        if l1 > 0.0:
            for lane in ti.static(range(CHUNK)):
                grad[lane] += l1 * ti.select(x[lane] > 0.0, 1.0, ti.select(x[lane] < 0.0, -1.0, 0.0))
        learns = vec16(0.0)
        for lane in ti.static(range(CHUNK)):
            learns[lane] = ti.select(lr[lane] > 0.0, 1.0, 0.0)
        m1 = m[at]
        v1 = v[at]
        m2 = m1 + (grad - m1) * (learns * (1.0 - beta1))
        v2 = v1 + (grad * grad - v1) * (learns * (1.0 - beta2))
        width = v2 * correction2
        for lane in ti.static(range(CHUNK)):
            width[lane] = ti.sqrt(width[lane])
        p[at] = x - lr * (m2 * correction1) / (width + eps)
        m[at] = m2
        v[at] = v2
        g[at] = vec16(0.0)


@vector_kernel
def adam_arena(
    planes: vec16_1d,
    grad_planes: vec16_1d,
    m_planes: vec16_1d,
    v_planes: vec16_1d,
    lines: vec16_1d,
    grad_lines: vec16_1d,
    m_lines: vec16_1d,
    v_lines: vec16_1d,
    grid: ivec3,
    max_chunks: ti.i32,
    first_chunk: ti.i32,
    end_chunk: ti.i32,
    l1_planes: vec3,
    l1_lines: vec3,
    lazy: ti.i32,
    lr: ti.f32,
    pace: f32_1d,
    beta1: ti.f32,
    beta2: ti.f32,
    correction1: ti.f32,
    correction2: ti.f32,
    eps: ti.f32,
):
    """One Adam step over chunks first_chunk .. end_chunk - 1 of all planes and lines.

    pace: times lr the learning rate of each component, 16 a chunk from chunk 0 on; 0 leaves a component as it is.
    l1_planes, l1_lines: weight of the L1 norm of each mode's texels, already divided by their number. lazy: see above.
    correction1 = 1 / (1 - beta1^n), correction2 = 1 / (1 - beta2^n).
    """
    plane_texels = grid[0] * grid[1] + grid[0] * grid[2] + grid[1] * grid[2]
    line_texels = grid[0] + grid[1] + grid[2]
    per_chunk = plane_texels + line_texels
    for i in range((end_chunk - first_chunk) * per_chunk):
        chunk = first_chunk + i // per_chunk
        rate = vec16(0.0)
        for lane in ti.static(range(CHUNK)):
            rate[lane] = lr * pace[chunk * CHUNK + lane]
        m, is_line, rest = find_texel(i % per_chunk, grid)
        plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
        if is_line == 1:
            l1 = l1_lines[0]
            if m == 1:
                l1 = l1_lines[1]
            elif m == 2:
                l1 = l1_lines[2]
            adam_chunk(
                lines, grad_lines, m_lines, v_lines, line_base + chunk * g_w + rest,
                rate, l1, lazy, beta1, beta2, correction1, correction2, eps,
            )  # fmt: skip
        else:
            l1 = l1_planes[0]
            if m == 1:
                l1 = l1_planes[1]
            elif m == 2:
                l1 = l1_planes[2]
            adam_chunk(
                planes, grad_planes, m_planes, v_planes, plane_base + chunk * area + rest,
                rate, l1, lazy, beta1, beta2, correction1, correction2, eps,
            )  # fmt: skip


@kernel
def adam_flat(
    first: ti.i32,
    end: ti.i32,
    p: f32_1d,
    g: f32_1d,
    m: f32_1d,
    v: f32_1d,
    lr: ti.f32,
    beta1: ti.f32,
    beta2: ti.f32,
    correction1: ti.f32,
    correction2: ti.f32,
    eps: ti.f32,
):
    """One Adam step over entries first .. end - 1 of a flat array."""
    for i in range(first, end):
        grad = g[i]
        m1 = m[i] * beta1 + grad * (1.0 - beta1)
        v1 = v[i] * beta2 + grad * grad * (1.0 - beta2)
        m[i] = m1
        v[i] = v1
        p[i] = p[i] - lr * (m1 * correction1) / (ti.sqrt(v1 * correction2) + eps)
        g[i] = 0.0
