"""From visible samples to the decoder's features: appearance products, masked by rank, and their basis; with adjoints.

    a(x, rank) = s_rank * (p B) + b_rank           27 features; p: the products of 3 rank components in each mode

B is the basis, s and b the optional scale and shift per rank. Of a group of samples that share one colour p is their
mean by weight (``groups.py``). Components at and above the rank are zero and get no gradient; chunks that lie wholly
above it are not read.
"""

import taichi as ti

from kernels.groups import Groups
from kernels.launch import kernel, vector_kernel
from kernels.tasks import RUN, Cut, Portion, indices_each, on_cpu, whole_portion
from kernels.types import f32_1d, i32_1d, load3, store3, vec3
from kernels.vectors import CHUNK, below, vec16, vec16_1d
from kernels.vm import (
    N_FEATURES,
    SCALES_WIDTH,
    Layout,
    product,
    product_slope,
    scatter_line,
    scatter_plane,
)

BASIS_PARTS = 16
"""Parts of the groups whose share of the basis' gradient is summed side by side."""


@vector_kernel
def appearance_products(
    groups: Groups, block: ti.i32, group_ray: i32_1d, group_start: i32_1d,
    visible_at: f32_1d, visible_part: f32_1d, ray_rank: i32_1d, factors: vec16_1d, layout: Layout,
    products: vec16_1d,
):  # fmt: skip
    """products (n groups, 3 chunks) of 16: p^m_k at each group's ray's rank, zeros above it; the groups' means.

    Column 3 c + m, as the rows of the basis. visible_at, visible_part: as ``groups.collect_visible`` left them. One
    task takes ``block`` groups through one chunk of one mode, and chunk comes after chunk: on a CPU its plane then
    stays in the cache. Adjoint: ``appearance_backward``.
    """
    blocks = (groups.n + block - 1) // block
    spread = ti.static(indices_each(2))
    for index in range(3 * groups.chunks * blocks * spread):
        if index % spread > 0:
            continue
        item = index // spread
        column = item // blocks
        chunk = column // 3
        first = item % blocks * block
        for g in range(first, ti.min(first + block, groups.n)):
            ray = group_ray[g]
            components = 3 * ray_rank[ray]
            p = vec16(0.0)
            if chunk * CHUNK < components:
                for j in range(group_start[g], group_start[g + 1]):
                    corner = layout.corner(column % 3, chunk, layout.spot(load3(visible_at, j)))
                    p += product(factors, corner) * visible_part[j]
            products[g * 3 * groups.chunks + column] = below(p, components, chunk)


@ti.func
def scatter_group(
    g: ti.i32, portion: Portion, groups: ti.template(), layout: ti.template(),
    of_groups: ti.template(), of_visible: ti.template(), factors: ti.template(), atomic: ti.template(),
):  # fmt: skip
    """Adds a portion of the gradients of a group's products: what the two kernels below have in common."""
    group_ray, group_start, ray_rank, grad_products = ti.static(of_groups)
    visible_at, visible_part, visible_slope = ti.static(of_visible)
    values, grad = ti.static(factors)
    column = portion.task
    chunk = column // 3
    components = 3 * ray_rank[group_ray[g]]
    learns = chunk * CHUNK < components
    whole = vec16(0.0)
    if learns:
        whole = below(grad_products[g * 3 * groups.chunks + column], components, chunk)
    for j in range(group_start[g], group_start[g + 1]):
        along = 0.0
        owns = ti.cast(portion.band == 0, ti.i32)
        if learns:
            corner = layout.corner(column % 3, chunk, layout.spot(load3(visible_at, j)))
            q = whole * visible_part[j]
            if portion.plane == 1:
                scatter_plane(q, corner, portion, values, grad, atomic)
            if portion.line == 1:
                owns, qp = scatter_line(q, corner, portion, values, grad, groups.shared, atomic)
                along = qp / visible_part[j]
        if groups.shared == 1 and owns == 1 and portion.line == 1:
            visible_slope[column * groups.visible + j] = along


@vector_kernel
def appearance_backward(
    groups: Groups, cut: Cut, group_ray: i32_1d, group_start: i32_1d,
    visible_at: f32_1d, visible_part: f32_1d, ray_rank: i32_1d, grad_products: vec16_1d,
    factors: vec16_1d, grad_factors: vec16_1d, layout: Layout, visible_slope: f32_1d,
):  # fmt: skip
    """Adjoint of ``appearance_products``: adds to grad_factors, given grad_products, as large as products.

    Where samples share a colour it also writes visible_slope (3 chunks, visible), grad_products . p of each visible
    sample, from which ``groups.mean_gradients`` goes on. For the CPU: a thread owns what it writes.
    """
    n_tasks = 3 * groups.chunks
    spread = ti.static(indices_each(1))
    for index in range(cut.portions(n_tasks) * spread):
        if index % spread > 0:
            continue
        portion = cut.portion(index // spread, n_tasks)
        for g in range(groups.n):
            scatter_group(
                g, portion, groups, layout, (group_ray, group_start, ray_rank, grad_products),
                (visible_at, visible_part, visible_slope), (factors, grad_factors), False,
            )  # fmt: skip


@vector_kernel
def appearance_backward_atomic(
    groups: Groups, group_ray: i32_1d, group_start: i32_1d,
    visible_at: f32_1d, visible_part: f32_1d, ray_rank: i32_1d, grad_products: vec16_1d,
    factors: vec16_1d, grad_factors: vec16_1d, layout: Layout, visible_slope: f32_1d,
):  # fmt: skip
    """``appearance_backward`` for a GPU: a thread for each group, chunk and mode, by atomics."""
    for item in range(3 * groups.chunks * groups.n):
        portion = whole_portion(item % (3 * groups.chunks))
        scatter_group(
            item // (3 * groups.chunks), portion, groups, layout,
            (group_ray, group_start, ray_rank, grad_products),
            (visible_at, visible_part, visible_slope), (factors, grad_factors), True,
        )  # fmt: skip


@vector_kernel
def appearance_slopes(
    groups: Groups, group_ray: i32_1d, group_start: i32_1d, visible_sample: i32_1d, visible_at: f32_1d,
    visible_part: f32_1d, ray_rank: i32_1d, grad_products: vec16_1d, factors: vec16_1d, layout: Layout,
    sample_slope: f32_1d,
):  # fmt: skip
    """Adds the appearance's part of dL/dx of each visible sample, x in texels, to sample_slope (n, 3)."""
    spread = ti.static(indices_each(16))
    for index in range(groups.n * spread):
        if index % spread > 0:
            continue
        g = index // spread
        components = 3 * ray_rank[group_ray[g]]
        for j in range(group_start[g], group_start[g + 1]):
            spot = layout.spot(load3(visible_at, j))
            slope = vec3(0.0)
            for column in range(3 * ((components + CHUNK - 1) // CHUNK)):
                q = below(grad_products[g * 3 * groups.chunks + column], components, column // 3)
                slope += product_slope(factors, q, column % 3, layout.corner(column % 3, column // 3, spot))
            s = visible_sample[j]
            store3(sample_slope, s, load3(sample_slope, s) + slope * visible_part[j])


@kernel
def scale_features(
    n_groups: ti.i32, group_ray: i32_1d, ray_rank: i32_1d, rank_scales: f32_1d, raw: f32_1d, features: f32_1d
):
    """features = s_rank * raw + b_rank, both (n, 27). Adjoint: ``scale_features_backward``."""
    for j in range(n_groups):
        a = (ray_rank[group_ray[j]] - 1) * SCALES_WIDTH + 2
        for i in range(N_FEATURES):
            at = j * N_FEATURES + i
            features[at] = rank_scales[a + i] * raw[at] + rank_scales[a + N_FEATURES + i]


@kernel
def scale_features_backward(
    n_groups: ti.i32, group_ray: i32_1d, ray_rank: i32_1d, rank_scales: f32_1d, raw: f32_1d,
    grad_features: f32_1d, grad_rank_scales: f32_1d,
):  # fmt: skip
    """Adds to grad_rank_scales (max_rank, 56) the gradients of s and b, and turns grad_features into that of ``raw``.

    On the CPU one task per feature owns that feature's column of both, so that sums have one order. Elsewhere a task
    takes a feature of some successive groups, mostly of one rank.
    """
    if ti.static(on_cpu()):
        for i in range(N_FEATURES):
            for j in range(n_groups):
                a = (ray_rank[group_ray[j]] - 1) * SCALES_WIDTH + 2 + i
                at = j * N_FEATURES + i
                g = grad_features[at]
                grad_rank_scales[a] = grad_rank_scales[a] + g * raw[at]
                grad_rank_scales[a + N_FEATURES] = grad_rank_scales[a + N_FEATURES] + g
                grad_features[at] = g * rank_scales[a]
    else:
        for item in range(N_FEATURES * ((n_groups + RUN - 1) // RUN)):
            first = item // N_FEATURES * RUN
            a = -1
            by_scale = 0.0
            by_shift = 0.0
            for j in range(first, ti.min(first + RUN, n_groups)):
                row = (ray_rank[group_ray[j]] - 1) * SCALES_WIDTH + 2 + item % N_FEATURES
                if row != a:
                    if a >= 0:
                        ti.atomic_add(grad_rank_scales[a], by_scale)
                        ti.atomic_add(grad_rank_scales[a + N_FEATURES], by_shift)
                    a = row
                    by_scale = 0.0
                    by_shift = 0.0
                at = j * N_FEATURES + item % N_FEATURES
                g = grad_features[at]
                by_scale += g * raw[at]
                by_shift += g
                grad_features[at] = g * rank_scales[a]
            ti.atomic_add(grad_rank_scales[a], by_scale)
            ti.atomic_add(grad_rank_scales[a + N_FEATURES], by_shift)


@vector_kernel
def basis_features(n_groups: ti.i32, columns: ti.i32, products: vec16_1d, basis: f32_1d, features: f32_1d):
    """features (n, 27) = products (n, columns) of 16 times the first rows of the basis. Adjoint: the two kernels below.

    For devices without BLAS; the CPU hands all three to numpy (``tslim.rendering.pipeline``).
    """
    for item in range(n_groups * N_FEATURES):
        j = item // N_FEATURES
        i = item % N_FEATURES
        total = 0.0
        for column in range(columns):
            p = products[j * columns + column]
            for lane in ti.static(range(CHUNK)):
                total += p[lane] * basis[(column * CHUNK + lane) * N_FEATURES + i]
        features[item] = total


@vector_kernel
def basis_features_backward(
    n_groups: ti.i32, columns: ti.i32, grad_features: f32_1d, basis: f32_1d, grad_products: vec16_1d
):
    """grad_products (n, columns) of 16 = grad_features times the basis transposed."""
    for item in range(n_groups * columns):
        j = item // columns
        total = vec16(0.0)
        for i in range(N_FEATURES):
            g = grad_features[j * N_FEATURES + i]
            for lane in ti.static(range(CHUNK)):
                total[lane] += g * basis[(item % columns * CHUNK + lane) * N_FEATURES + i]
        grad_products[item] = total


@vector_kernel
def basis_gradient(n_groups: ti.i32, columns: ti.i32, products: vec16_1d, grad_features: f32_1d, grad_basis: f32_1d):
    """Adds products transposed times grad_features to grad_basis (16 columns, 27); a task takes some of the groups."""
    size = columns * CHUNK * N_FEATURES
    part = (n_groups + BASIS_PARTS - 1) // BASIS_PARTS
    for item in range(BASIS_PARTS * size):
        k = item % size // N_FEATURES
        i = item % N_FEATURES
        first = item // size * part
        total = 0.0
        for j in range(first, ti.min(first + part, n_groups)):
            total += products[j * columns + k // CHUNK][k % CHUNK] * grad_features[j * N_FEATURES + i]
        ti.atomic_add(grad_basis[item % size], total)
