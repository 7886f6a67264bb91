"""Adam (Kingma and Ba 2015) over arenas and flat arrays, with the L1 penalty and the rank mask in the same pass.

    g += l1 sign(p);   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g²;   p -= lr (m / c1) / (sqrt(v / c2) + eps)

with c1 = 1 - b1^n, c2 = 1 - b2^n after n steps. Gradients are zeroed where they were used. Each component of an arena
has a learning rate of its own; those with none keep their bits, moments included. With ``lazy`` = 1 so do elements of
16 components without a gradient: most of a large grid, which Adam otherwise moves on by what is left in m.
"""

import taichi as ti

from kernels.launch import kernel, vector_kernel
from kernels.types import f32_1d, record, vec3
from kernels.vectors import CHUNK, vec16, vec16_1d
from kernels.vm import Layout


@record
class AdamStep:
    """One step: correction1 = 1 / c1, correction2 = 1 / c2."""

    lr: ti.f32
    beta1: ti.f32
    beta2: ti.f32
    correction1: ti.f32
    correction2: ti.f32
    eps: ti.f32


@record
class ArenaStep:
    """What of an arena a step moves on, and how.

    Chunks ``first_chunk`` .. ``end_chunk - 1``. l1_planes, l1_lines: weight of the L1 norm of each mode's texels,
    already divided by their number. lazy: see above.
    """

    adam: AdamStep
    first_chunk: ti.i32
    end_chunk: ti.i32
    l1_planes: vec3
    l1_lines: vec3
    lazy: ti.i32

    @ti.func
    def l1(self, m: ti.i32, is_line: ti.i32) -> ti.f32:
        """Weight of the L1 norm of mode m's planes or lines."""
        weight = 0.0
        for mode in ti.static(range(3)):
            if m == mode:
                weight = ti.select(is_line == 1, self.l1_lines[mode], self.l1_planes[mode])
        return weight


@ti.func
def adam_chunk(step: ti.template(), arrays: ti.template(), at: ti.i32, lr: vec16, l1: ti.f32):
    """One element of 16 components; lanes with a learning rate of 0 are left as they are."""
    p, g, m, v = ti.static(arrays)
    grad = g[at]
    largest = 1.0
    if step.lazy == 1:
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
        m2 = m1 + (grad - m1) * (learns * (1.0 - step.adam.beta1))
        v2 = v1 + (grad * grad - v1) * (learns * (1.0 - step.adam.beta2))
        width = v2 * step.adam.correction2
        for lane in ti.static(range(CHUNK)):
            width[lane] = ti.sqrt(width[lane])
        p[at] = x - lr * (m2 * step.adam.correction1) / (width + step.adam.eps)
        m[at] = m2
        v[at] = v2
        g[at] = vec16(0.0)


@vector_kernel
def adam_arena(
    p: vec16_1d, g: vec16_1d, m: vec16_1d, v: vec16_1d, layout: Layout, step: ArenaStep, pace: f32_1d
):  # fmt: skip
    """One Adam step over the planes and lines of an arena p; its gradients g are zeroed.

    pace: times the learning rate that of each component, 16 a chunk from chunk 0 on; 0 leaves it as it is.
    """
    per_chunk = layout.texels()
    for i in range((step.end_chunk - step.first_chunk) * per_chunk):
        chunk = step.first_chunk + i // per_chunk
        rate = vec16(0.0)
        for lane in ti.static(range(CHUNK)):
            rate[lane] = step.adam.lr * pace[chunk * CHUNK + lane]
        mode, is_line, rest = layout.find_texel(i % per_chunk)
        tensor = layout.mode(mode)
        at = ti.select(is_line == 1, tensor.line + chunk * tensor.length, tensor.plane + chunk * tensor.area) + rest
        adam_chunk(step, (p, g, m, v), at, rate, step.l1(mode, is_line))


@kernel
def adam_flat(p: f32_1d, g: f32_1d, m: f32_1d, v: f32_1d, first: ti.i32, end: ti.i32, step: AdamStep):
    """One Adam step over entries first .. end - 1 of a flat array."""
    for i in range(first, end):
        grad = g[i]
        m1 = m[i] * step.beta1 + grad * (1.0 - step.beta1)
        v1 = v[i] * step.beta2 + grad * grad * (1.0 - step.beta2)
        m[i] = m1
        v[i] = v1
        p[i] = p[i] - step.lr * (m1 * step.correction1) / (ti.sqrt(v1 * step.correction2) + step.eps)
        g[i] = 0.0
