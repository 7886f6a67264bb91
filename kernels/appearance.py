"""From kept samples to the decoder's features: appearance products, masked by rank, and their basis; with adjoints.

    a(x, rank) = s_rank * (p B) + b_rank           27 features; p: the products of 3 rank components in each mode

B is the basis, s and b the optional scale and shift per rank. Of a group of samples that share one colour p is their
mean by weight (``composite.py``). Components at and above the rank are zero and get no gradient; chunks that lie wholly
above it are not read.
"""

import taichi as ti

from kernels.launch import kernel, vector_kernel
from kernels.space import pull_back
from kernels.tasks import indices_each, scatter_items, scatter_share
from kernels.types import f32_1d, i32_1d, ivec3, load3, vec3
from kernels.vectors import CHUNK, below, vec16, vec16_1d
from kernels.vm import (
    AFFINE_WIDTH,
    N_FEATURES,
    product,
    product_slope,
    scatter_line,
    scatter_plane,
    texel_below,
)


@vector_kernel
def appearance_products(
    n_groups: ti.i32,
    n_chunks: ti.i32,
    block: ti.i32,
    group_ray: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_at: f32_1d,
    kept_weight: f32_1d,
    ray_rank: i32_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    grid: ivec3,
    max_chunks: ti.i32,
    products: vec16_1d,
):
    """products (n_groups, 3 n_chunks) of 16: p^m_k at each group's ray's rank, zeros above it; the groups' means.

    Column 3 c + m, as the rows of the basis. kept_at: as ``composite.collect_kept`` left it. One task takes ``block``
    groups through one chunk of one mode, and chunk comes after chunk: on a CPU its plane then stays in the cache.
    Adjoint: ``appearance_backward``.
    """
    blocks = (n_groups + block - 1) // block
    spread = ti.static(indices_each(2))
    for index in range(3 * n_chunks * blocks * spread):
        if index % spread > 0:
            continue
        item = index // spread
        column = item // blocks
        chunk = column // 3
        first = item % blocks * block
        for g in range(first, ti.min(first + block, n_groups)):
            ray = group_ray[g]
            components = 3 * ray_rank[ray]
            p = vec16(0.0)
            if chunk * CHUNK < components:
                for j in range(group_start[g], group_start[g + 1]):
                    low, frac = texel_below(load3(kept_at, j), grid)
                    share = kept_weight[j] / group_kept[g]
                    p += product(planes, lines, column % 3, chunk, low, frac, grid, max_chunks) * share
            products[g * 3 * n_chunks + column] = below(p, components, chunk)


@vector_kernel
def appearance_backward(
    n_groups: ti.i32,
    n_kept: ti.i32,
    n_chunks: ti.i32,
    threads: ti.i32,
    n_whole: ti.i32,
    n_bands: ti.i32,
    n_parts: ti.i32,
    group_ray: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_at: f32_1d,
    kept_weight: f32_1d,
    ray_rank: i32_1d,
    grad_products: vec16_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    grad_planes: vec16_1d,
    grad_lines: vec16_1d,
    grid: ivec3,
    max_chunks: ti.i32,
    use_slope: ti.i32,
    kept_slope: f32_1d,
    atomic: ti.template(),
):
    """Adjoint of ``appearance_products``: adds to the gradient arenas, given grad_products, as large as products.

    With use_slope = 1 it also writes kept_slope (3 n_chunks, n_kept), grad_products . p of each kept sample, from which
    ``composite.mean_gradients`` goes on. threads, n_whole, n_bands, n_parts: see ``tasks.scatter_share``.
    """
    if ti.static(atomic):
        for item in range(n_groups * n_chunks * 3):
            group = item // (n_chunks * 3)
            column = item % (n_chunks * 3)
            chunk = column // 3
            ray = group_ray[group]
            components = 3 * ray_rank[ray]
            learns = chunk * CHUNK < components
            whole = below(grad_products[group * 3 * n_chunks + column], components, chunk)
            for j in range(group_start[group], group_start[group + 1]):
                along = 0.0
                if learns:
                    low, frac = texel_below(load3(kept_at, j), grid)
                    share = kept_weight[j] / group_kept[group]
                    q = whole * share
                    scatter_plane(q, column % 3, chunk, 0, 1, low, frac, lines, grad_planes, grid, max_chunks, True)
                    _, qp = scatter_line(
                        q, use_slope, column % 3, chunk, 0, 1, low, frac, planes, lines, grad_lines, grid,
                        max_chunks, True,
                    )  # fmt: skip
                    along = qp / share
                if use_slope == 1:
                    kept_slope[column * n_kept + j] = along
    else:
        spread = ti.static(indices_each(1))
        for index in range(scatter_items(3 * n_chunks, threads, n_whole, n_bands, n_parts) * spread):
            if index % spread > 0:
                continue
            item = index // spread
            column, plane, line, band, bands = scatter_share(item, 3 * n_chunks, threads, n_whole, n_bands, n_parts)
            m = column % 3
            chunk = column // 3
            for group in range(n_groups):
                ray = group_ray[group]
                components = 3 * ray_rank[ray]
                learns = chunk * CHUNK < components
                whole = vec16(0.0)
                if learns:
                    whole = below(grad_products[group * 3 * n_chunks + column], components, chunk)
                for j in range(group_start[group], group_start[group + 1]):
                    along = 0.0
                    owns = ti.cast(band == 0, ti.i32)
                    if learns:
                        low, frac = texel_below(load3(kept_at, j), grid)
                        share = kept_weight[j] / group_kept[group]
                        q = whole * share
                        if plane == 1:
                            scatter_plane(
                                q, m, chunk, band, bands, low, frac, lines, grad_planes, grid, max_chunks, False
                            )
                        if line == 1:
                            owns, qp = scatter_line(
                                q, use_slope, m, chunk, band, bands, low, frac, planes, lines, grad_lines, grid,
                                max_chunks, False,
                            )  # fmt: skip
                            along = qp / share
                    if use_slope == 1 and owns == 1 and line == 1:
                        kept_slope[column * n_kept + j] = along


@vector_kernel
def appearance_ray_gradients(
    n_rays: ti.i32,
    n_chunks: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_group_start: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_t: f32_1d,
    kept_at: f32_1d,
    kept_weight: f32_1d,
    grad_products: vec16_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    grad_o: f32_1d,
    grad_d: f32_1d,
):
    """Adds the appearance's part to grad_o and grad_d (n_rays, 3), without that of the decoder's viewing direction."""
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        o = load3(ray_o, ray)
        d = load3(ray_d, ray)
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        for g in range(ray_group_start[ray], ray_group_start[ray + 1]):
            for j in range(group_start[g], group_start[g + 1]):
                t = kept_t[j]
                low, frac = texel_below(load3(kept_at, j), grid)
                by_x = vec3(0.0)
                for part in range(3 * ((3 * ray_rank[ray] + CHUNK - 1) // CHUNK)):
                    q = below(grad_products[g * 3 * n_chunks + part], 3 * ray_rank[ray], part // 3)
                    by_x += product_slope(
                        planes, lines, q, part % 3, part // 3, low, frac, texels_per_unit, grid, max_chunks
                    )
                by_x *= kept_weight[j] / group_kept[g]
                if contracted == 1:
                    by_x = pull_back(o + d * t, by_x)
                by_o += by_x
                by_d += by_x * t
        for a in ti.static(range(3)):
            grad_o[3 * ray + a] = grad_o[3 * ray + a] + by_o[a]
            grad_d[3 * ray + a] = grad_d[3 * ray + a] + by_d[a]


@kernel
def feature_affine(
    n_groups: ti.i32, group_ray: i32_1d, ray_rank: i32_1d, affine: f32_1d, raw: f32_1d, features: f32_1d
):
    """features = s_rank * raw + b_rank, both (n, 27). Adjoint: ``feature_affine_backward``."""
    for j in range(n_groups):
        a = (ray_rank[group_ray[j]] - 1) * AFFINE_WIDTH + 2
        for i in range(N_FEATURES):
            at = j * N_FEATURES + i
            features[at] = affine[a + i] * raw[at] + affine[a + N_FEATURES + i]


@kernel
def feature_affine_backward(
    n_groups: ti.i32,
    group_ray: i32_1d,
    ray_rank: i32_1d,
    affine: f32_1d,
    raw: f32_1d,
    grad_features: f32_1d,
    grad_affine: f32_1d,
):
    """Adds to grad_affine (max_rank, 56) the gradients of s and b, and turns grad_features into that of ``raw``.

    One task per feature owns that feature's column of both, so that sums have one order.
    """
    for i in range(N_FEATURES):
        for j in range(n_groups):
            a = (ray_rank[group_ray[j]] - 1) * AFFINE_WIDTH + 2 + i
            at = j * N_FEATURES + i
            g = grad_features[at]
            grad_affine[a] = grad_affine[a] + g * raw[at]
            grad_affine[a + N_FEATURES] = grad_affine[a + N_FEATURES] + g
            grad_features[at] = g * affine[a]


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
    """grad_basis (16 columns, 27) = products transposed times grad_features."""
    for item in range(columns * CHUNK * N_FEATURES):
        k = item // N_FEATURES
        i = item % N_FEATURES
        total = 0.0
        for j in range(n_groups):
            total += products[j * columns + k // CHUNK][k % CHUNK] * grad_features[j * N_FEATURES + i]
        grad_basis[item] = total
